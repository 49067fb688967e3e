//! Which pending task is the oldest that fits a node, without looking at all tasks.
//!
//! Tasks of one type and with the same needs are a *class*: a node fits all of them or none. Of each class the index
//! keeps the oldest tasks, a *window*, and knows up to where that is complete, its *horizon*. A claim looks at the
//! first task of each class that fits. When a window has run dry and there is more beyond its horizon, the index is
//! built again by one pass over the tasks ([`Builder`]).
//!
//! - **P1** Every pending task of a class that is not above its horizon is in its window (no horizon: all of them).
//! - **P2** The index describes the snapshot and what the group has done to it so far: whoever changes a task calls
//!   [`Pending::change`]. Whoever cannot, throws the index away.
//! - **P3** It holds at most about [`MOST_BYTES`], whatever the tasks are. With more than [`MOST_CLASSES`] classes it
//!   gives up, and a claim looks at every task; every [`CLAIMS_UNTIL_TRIED`] claims it is tried again. A class of which
//!   no task waits any more is no class.
//! - **P4** What a group does to it is noted, so that a group that fails can be taken back
//!   ([`Pending::take_back`]): it describes the snapshot again, with windows that are at most shorter.

use std::collections::{BTreeSet, HashMap};

/// P3.
const MOST_BYTES: usize = 8 << 20;
/// P3.
const MOST_CLASSES: usize = 1024;
/// P3.
const CLAIMS_UNTIL_TRIED: u32 = 64;
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

/// A pending task, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    id: Box<str>,
    of_type: Option<Box<str>>,
    needs: Needs,
    created_at: i64,
}

impl Kept {
    fn of(task: &Waiting<'_>) -> Self {
        Self {
            id: task.id.into(),
            of_type: task.of_type.map(Box::from),
            needs: task.needs,
            created_at: task.created_at,
        }
    }

    fn waiting(&self) -> Waiting<'_> {
        Waiting {
            id: &self.id,
            of_type: self.of_type.as_deref(),
            needs: self.needs,
            created_at: self.created_at,
        }
    }
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By type, then by needs. None is empty.
    classes: HashMap<Option<Box<str>>, HashMap<Needs, Class>>,
    count: usize,
    gave_up: bool,
    /// Asked since it gave up.
    claims: u32,
    /// P4: what changed in this group, in order.
    noted: Vec<(Option<Kept>, Option<Kept>)>,
}

impl Pending {
    /// A group begins: what it does can be taken back (P4).
    pub(super) fn begin(&mut self) {
        self.noted.clear();
    }

    /// Takes back what was changed since [`begin`](Self::begin).
    pub(super) fn take_back(&mut self) {
        for (before, after) in std::mem::take(&mut self.noted).into_iter().rev() {
            let (before, after) = (before.as_ref(), after.as_ref());
            self.put(
                after.map(Kept::waiting).as_ref(),
                before.map(Kept::waiting).as_ref(),
            );
        }
    }

    /// Takes a task for another, or for itself as it is now. `None`: it is not pending.
    pub(super) fn change(&mut self, before: Option<&Waiting<'_>>, after: Option<&Waiting<'_>>) {
        if before == after || self.gave_up {
            return;
        }
        self.noted.push((before.map(Kept::of), after.map(Kept::of)));
        self.put(before, after);
    }

    fn put(&mut self, before: Option<&Waiting<'_>>, after: Option<&Waiting<'_>>) {
        if let Some(before) = before {
            self.remove(before);
        }
        if let Some(after) = after {
            self.add(after);
        }
    }

    fn remove(&mut self, task: &Waiting<'_>) {
        let of_type = task.of_type.map(Box::from);
        let Some(classes) = self.classes.get_mut(&of_type) else {
            return;
        };
        let Some(class) = classes.get_mut(&task.needs) else {
            return;
        };
        class.remove(&(task.created_at, task.id.into()));
        if class.window.is_empty() && class.horizon.is_none() {
            classes.remove(&task.needs);
            self.count -= 1;
            if classes.is_empty() {
                self.classes.remove(&of_type);
            }
        }
    }

    fn add(&mut self, task: &Waiting<'_>) {
        if self.gave_up {
            return;
        }
        let classes = self.classes.entry(task.of_type.map(Box::from)).or_default();
        let before = classes.len();
        let class = classes.entry(task.needs).or_default();
        class.add((task.created_at, task.id.into()), most_bytes(self.count));
        if classes.len() > before {
            self.count += 1;
            self.grown();
        }
    }

    /// P3, after a new class.
    fn grown(&mut self) {
        if self.count > MOST_CLASSES {
            *self = Self::given_up();
        } else if self.count > 16 && self.count.is_power_of_two() {
            let most = MOST_BYTES / (self.count * 2);
            let classes = self.classes.values_mut().flat_map(HashMap::values_mut);
            classes.for_each(|class| class.trim(most));
        }
    }

    fn given_up() -> Self {
        Self {
            gave_up: true,
            ..Self::default()
        }
    }

    /// Is it time to build an index again that gave up?
    pub(super) fn is_to_be_tried(&mut self) -> bool {
        self.claims += u32::from(self.gave_up);
        self.claims >= CLAIMS_UNTIL_TRIED
    }

    /// Are there too many classes (P3)?
    #[cfg(test)]
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up
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

/// P3: of one class's window, among so many classes.
fn most_bytes(classes: usize) -> usize {
    MOST_BYTES / classes.next_power_of_two().max(16)
}

/// Makes the index of many tasks, without a copy of those that stay outside of the windows.
#[derive(Debug, Default)]
pub(super) struct Builder<'a> {
    numbers: HashMap<(Option<&'a str>, Needs), usize>,
    classes: Vec<Built<'a>>,
    /// The class of the last task: the next one's is often the same.
    last: Option<((Option<&'a str>, Needs), usize)>,
}

/// A class's oldest tasks, in no order.
#[derive(Debug, Default)]
struct Built<'a> {
    places: Vec<(i64, &'a str)>,
    bytes: usize,
    horizon: Option<(i64, &'a str)>,
}

impl<'a> Built<'a> {
    /// Keeps the oldest of at most so many bytes, at least one.
    fn trim(&mut self, most_bytes: usize) {
        if self.bytes <= most_bytes {
            return;
        }
        self.places.sort_unstable();
        let mut bytes = 0;
        let fit = self.places.iter().take_while(|place| {
            bytes += ENTRY_BYTES + place.1.len();
            bytes <= most_bytes
        });
        let fit = fit.count().max(1);
        if fit < self.places.len() {
            self.places.truncate(fit);
            self.horizon = self.places.last().copied();
        }
        self.bytes = self
            .places
            .iter()
            .map(|place| ENTRY_BYTES + place.1.len())
            .sum();
    }
}

impl<'a> Builder<'a> {
    /// Adds a pending task. False: there are too many classes (P3), and no more need be added.
    pub(super) fn add(&mut self, task: &Waiting<'a>) -> bool {
        let class = (task.of_type, task.needs);
        let number = match self.last {
            Some((last, number)) if last == class => number,
            _ => {
                let next = self.classes.len();
                let number = *self.numbers.entry(class).or_insert(next);
                if number == next {
                    self.classes.push(Built::default());
                    if next >= MOST_CLASSES {
                        return false;
                    }
                    if next >= 16 && next.is_power_of_two() {
                        let most = most_bytes(next + 1);
                        self.classes.iter_mut().for_each(|class| class.trim(most));
                    }
                }
                self.last = Some((class, number));
                number
            }
        };
        let most = most_bytes(self.classes.len());
        if let Some(class) = self.classes.get_mut(number) {
            let place = (task.created_at, task.id);
            if class.horizon.is_none_or(|horizon| place <= horizon) {
                class.places.push(place);
                class.bytes += ENTRY_BYTES + task.id.len();
                if class.bytes > most * 2 {
                    class.trim(most);
                }
            }
        }
        true
    }

    /// The index.
    pub(super) fn finish(mut self) -> Pending {
        if self.classes.len() > MOST_CLASSES {
            return Pending::given_up();
        }
        let mut pending = Pending {
            count: self.classes.len(),
            ..Pending::default()
        };
        let most = most_bytes(pending.count);
        for ((of_type, needs), number) in self.numbers {
            let Some(built) = self.classes.get_mut(number) else {
                continue;
            };
            built.trim(most);
            let owned = |place: (i64, &str)| -> Place { (place.0, place.1.into()) };
            let class = Class {
                bytes: built.bytes,
                horizon: built.horizon.map(owned),
                window: built.places.drain(..).map(owned).collect(),
            };
            let of_type = of_type.map(Box::from);
            let classes = pending.classes.entry(of_type).or_default();
            classes.insert(needs, class);
        }
        pending
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
        let mut builder = Builder::default();
        for (id, task) in model {
            assert!(builder.add(&waiting(id, task)), "few classes");
        }
        builder.finish()
    }

    fn expected(model: &Model, wanted: &Wanted<'_>) -> Oldest {
        let fitting = model
            .iter()
            .filter(|(_, task)| wanted.fits(task.0.as_deref(), task.1));
        let oldest = fitting.min_by_key(|(id, task)| (task.2, (*id).clone()));
        oldest.map_or(Oldest::None, |(id, _)| Oldest::Task(id.clone()))
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
            steps in proptest::collection::vec(
                (0_u16..40, 0_u8..4, 1_i64..3, 0_i64..9, any::<bool>(), 0_u8..8),
                1..120,
            ),
        ) {
            let mut model = Model::new();
            let mut index = Pending::default();
            let mut committed = model.clone();
            for (number, of_type, cpu_cores, created_at, is_pending, end) in steps {
                match end {
                    // The group fails.
                    0 => {
                        index.take_back();
                        model = committed.clone();
                        let mut classes = index.classes.values().flat_map(HashMap::values);
                        prop_assert!(
                            classes.all(|class| !class.window.is_empty() || class.horizon.is_some()),
                            "a class of nothing is kept"
                        );
                        let count = index.classes.values().map(HashMap::len).sum::<usize>();
                        prop_assert_eq!(index.count, count);
                    }
                    // It ends well.
                    1 => {
                        index.begin();
                        committed = model.clone();
                    }
                    _ => {}
                }
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
                let expected = expected(&model, &wanted);
                let mut found = index.oldest(&wanted);
                if found == Oldest::Dry {
                    // As the engine does: from what is committed, and then what the group did.
                    index = built(&committed);
                    for id in committed.keys().chain(model.keys()) {
                        index.change(
                            committed.get(id).map(|task| waiting(id, task)).as_ref(),
                            model.get(id).map(|task| waiting(id, task)).as_ref(),
                        );
                    }
                    found = index.oldest(&wanted);
                    if found == Oldest::Dry {
                        index = built(&model);
                        committed = model.clone();
                        found = index.oldest(&wanted);
                    }
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
            index.change(None, Some(&waiting(&format!("task-{number:010}"), &task)));
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
