//! Which pending task is the oldest that fits a node, without looking at all tasks.
//!
//! Tasks of one type and with the same needs are a *class*: a node fits all of them or none. Of each class the index
//! keeps the oldest tasks, a *window*, and knows up to where that is complete, its *horizon*. A claim looks at the
//! first task of each class that fits. When a window has run dry and there is more beyond its horizon, the index is
//! built again by one pass over the tasks.
//!
//! - **P1** Every pending task of a class that is not above its horizon is in its window (no horizon: all of them).
//! - **P2** The index describes the snapshot and what the group has done to it so far: whoever changes a task calls
//!   [`Pending::change`]. Whoever cannot, throws the index away.
//! - **P3** It holds at most about [`MOST_BYTES`], whatever the tasks are. With more than [`MOST_CLASSES`] classes it
//!   gives up, and a claim looks at every task.

use std::collections::{BTreeSet, HashMap};

/// P3.
const MOST_BYTES: usize = 8 << 20;
/// P3.
const MOST_CLASSES: usize = 1024;
/// What an entry takes beside its id.
const ENTRY_BYTES: usize = 64;

/// What a task that waits needs of a node, with the defaults for what it leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Needs {
    pub(super) cpu_cores: i64,
    pub(super) gpu_cores: i64,
    pub(super) memory_mb: i64,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            cpu_cores: 1,
            gpu_cores: 0,
            memory_mb: 256,
        }
    }
}

/// A pending task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting<'a> {
    pub(super) id: &'a str,
    pub(super) of_type: Option<&'a str>,
    pub(super) needs: Needs,
    /// The earliest of all, if it does not say when it was created.
    pub(super) created_at: i64,
}

/// What a claim asks for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Empty: any.
    pub(super) types: &'a [String],
    pub(super) cpu_count: i64,
    /// Usable ones.
    pub(super) gpu_count: i64,
    pub(super) memory_bytes: i64,
}

impl Wanted<'_> {
    /// Do tasks of this class fit?
    pub(super) fn fits(&self, of_type: Option<&str>, needs: Needs) -> bool {
        let is_wanted = |found: &str| self.types.iter().any(|wanted| wanted == found);
        (self.types.is_empty() || of_type.is_some_and(is_wanted))
            && needs.cpu_cores <= self.cpu_count
            && (needs.gpu_cores <= 0 || needs.gpu_cores <= self.gpu_count)
            && needs.memory_mb.saturating_mul(1 << 20) <= self.memory_bytes
    }
}

/// What the index knows of the oldest task that fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Oldest {
    /// This one.
    Task(String),
    /// No pending task fits.
    None,
    /// A window is dry: build the index again and ask again.
    Dry,
    /// Too many classes: look at every task.
    Unknown,
}

/// By age, then id.
type Place = (i64, Box<str>);

#[derive(Debug, Default)]
struct Class {
    window: BTreeSet<Place>,
    /// What the window's entries take.
    bytes: usize,
    /// P1.
    horizon: Option<Place>,
}

impl Class {
    fn add(&mut self, place: Place, most_bytes: usize) {
        if self
            .horizon
            .as_ref()
            .is_some_and(|horizon| place > *horizon)
        {
            return;
        }
        let bytes = entry_bytes(&place);
        if self.window.insert(place) {
            self.bytes += bytes;
        }
        self.trim(most_bytes);
    }

    fn remove(&mut self, place: &Place) {
        if self.window.remove(place) {
            self.bytes -= entry_bytes(place);
        }
    }

    fn trim(&mut self, most_bytes: usize) {
        while self.bytes > most_bytes && self.window.len() > 1 {
            if let Some(last) = self.window.pop_last() {
                self.bytes -= entry_bytes(&last);
            }
            self.horizon = self.window.last().cloned();
        }
    }
}

fn entry_bytes(place: &Place) -> usize {
    ENTRY_BYTES + place.1.len()
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By type, then by needs.
    classes: HashMap<Option<Box<str>>, HashMap<Needs, Class>>,
    count: usize,
    gave_up: bool,
}

impl Pending {
    /// Takes a task for another, or for itself as it is now. `None`: it is not pending.
    pub(super) fn change(&mut self, before: Option<&Waiting<'_>>, after: Option<&Waiting<'_>>) {
        if before == after || self.gave_up {
            return;
        }
        if let Some(before) = before {
            let of_type = before.of_type.map(Box::from);
            let class = self.classes.get_mut(&of_type);
            if let Some(class) = class.and_then(|classes| classes.get_mut(&before.needs)) {
                class.remove(&(before.created_at, before.id.into()));
            }
        }
        if let Some(after) = after {
            self.add(after);
        }
    }

    /// Adds a pending task.
    pub(super) fn add(&mut self, task: &Waiting<'_>) {
        if self.gave_up {
            return;
        }
        let classes = self.classes.entry(task.of_type.map(Box::from)).or_default();
        let before = classes.len();
        let class = classes.entry(task.needs).or_default();
        let most = MOST_BYTES / self.count.next_power_of_two().max(16);
        class.add((task.created_at, task.id.into()), most);
        if classes.len() > before {
            self.count += 1;
            self.grown();
        }
    }

    /// P3, after a new class.
    fn grown(&mut self) {
        if self.count > MOST_CLASSES {
            *self = Self {
                gave_up: true,
                ..Self::default()
            };
        } else if self.count > 16 && self.count.is_power_of_two() {
            let most = MOST_BYTES / (self.count * 2);
            let classes = self.classes.values_mut().flat_map(HashMap::values_mut);
            classes.for_each(|class| class.trim(most));
        }
    }

    /// The oldest task that fits.
    pub(super) fn oldest(&self, wanted: &Wanted<'_>) -> Oldest {
        if self.gave_up {
            return Oldest::Unknown;
        }
        let mut oldest: Option<(&Place, bool)> = None;
        for (of_type, classes) in &self.classes {
            for (needs, class) in classes {
                // What is beyond the horizon comes after it.
                let first = class.window.first().map(|first| (first, false));
                let first = first.or_else(|| class.horizon.as_ref().map(|horizon| (horizon, true)));
                let Some(first) = first else { continue };
                if oldest.is_none_or(|oldest| first.0 < oldest.0)
                    && wanted.fits(of_type.as_deref(), *needs)
                {
                    oldest = Some(first);
                }
            }
        }
        match oldest {
            None => Oldest::None,
            Some((_, true)) => Oldest::Dry,
            Some((place, false)) => Oldest::Task(place.1.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything, looked at anew each time.
    type Model = std::collections::BTreeMap<String, (Option<String>, Needs, i64)>;

    fn waiting<'a>(
        id: &'a str,
        (of_type, needs, created_at): &'a (Option<String>, Needs, i64),
    ) -> Waiting<'a> {
        Waiting {
            id,
            of_type: of_type.as_deref(),
            needs: *needs,
            created_at: *created_at,
        }
    }

    fn built(model: &Model) -> Pending {
        let mut index = Pending::default();
        for (id, task) in model {
            index.add(&waiting(id, task));
        }
        index
    }

    fn wanted(types: &[String], cpu_count: i64) -> Wanted<'_> {
        Wanted {
            types,
            cpu_count,
            gpu_count: 0,
            memory_bytes: 1 << 40,
        }
    }

    /// Long ids, so that windows hold few.
    fn id(number: u16) -> String {
        format!("{number}{}", "-".repeat(200_000))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_oldest_that_fits_is_the_one_that_a_look_at_all_finds(
            steps in proptest::collection::vec((0_u16..40, 0_u8..4, 1_i64..3, 0_i64..9, any::<bool>()), 1..120),
        ) {
            let mut model = Model::new();
            let mut index = Pending::default();
            for (number, of_type, cpu_cores, created_at, is_pending) in steps {
                let id = id(number);
                let of_type = (of_type > 0).then(|| format!("type-{of_type}"));
                let needs = Needs { cpu_cores, ..Needs::default() };
                let before = model.remove(&id);
                let after = is_pending.then_some((of_type.clone(), needs, created_at));
                index.change(
                    before.as_ref().map(|task| waiting(&id, task)).as_ref(),
                    after.as_ref().map(|task| waiting(&id, task)).as_ref(),
                );
                if let Some(after) = after {
                    model.insert(id, after);
                }
                let types: Vec<String> = of_type.into_iter().collect();
                let wanted = wanted(&types, cpu_cores);
                let fitting = model.iter().filter(|(_, task)| wanted.fits(task.0.as_deref(), task.1));
                let expected = fitting.min_by_key(|(id, task)| (task.2, (*id).clone()));
                let expected = expected.map_or(Oldest::None, |(id, _)| Oldest::Task(id.clone()));
                let mut found = index.oldest(&wanted);
                if found == Oldest::Dry {
                    index = built(&model);
                    found = index.oldest(&wanted);
                }
                let short = |oldest: &Oldest| format!("{oldest:.40?}");
                prop_assert!(found == expected, "{} for {}", short(&found), short(&expected));
            }
        }
    }

    #[test]
    fn too_many_classes_are_not_kept() {
        let mut index = Pending::default();
        for cpu_cores in 0..=i64::try_from(MOST_CLASSES).expect("small") {
            assert_ne!(
                index.oldest(&wanted(&[], i64::MAX)),
                Oldest::Unknown,
                "{cpu_cores}"
            );
            let needs = Needs {
                cpu_cores,
                ..Needs::default()
            };
            index.add(&waiting("t", &(None, needs, 0)));
        }
        assert_eq!(index.oldest(&wanted(&[], i64::MAX)), Oldest::Unknown);
    }

    #[test]
    fn a_window_is_bounded_by_its_bytes() {
        let mut index = Pending::default();
        let task = (None, Needs::default(), 0);
        for number in 0..200_000_u32 {
            index.add(&waiting(&format!("task-{number:010}"), &task));
        }
        let class = &index.classes[&None][&Needs::default()];
        assert!(class.bytes <= MOST_BYTES / 16, "{} bytes", class.bytes);
        assert!(
            class.window.len() > 1_000 && class.horizon.is_some(),
            "{}",
            class.window.len()
        );
    }
}
