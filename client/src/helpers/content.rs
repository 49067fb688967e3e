//! Content, and who has it and wants it.

use std::collections::HashSet;

use crate::columns::{Flag, Text, TextLists, content, tasks};
use crate::error::ReadError;
use crate::rows::{ContentRef, Rows, Texts};
use crate::snapshot::Snapshot;

impl Snapshot {
    /// All content.
    #[must_use]
    pub fn get_all_content(&self) -> Rows<'_, ContentRef<'_>> {
        self.content()
    }

    /// The item with this CID.
    pub fn find_content_by_cid(&self, cid: &str) -> Result<Option<ContentRef<'_>>, ReadError> {
        self.content_item(cid)
    }

    /// The items that a node provides.
    pub fn find_content_by_provider<'s>(
        &'s self,
        provider: &str,
    ) -> impl Iterator<Item = Result<ContentRef<'s>, ReadError>> {
        self.content().select(move |chunk| {
            let providers = TextLists::of(chunk, content::PROVIDERS);
            move |row| providers.contain(row, provider)
        })
    }

    /// The items that are not pinned and that no task refers to: neither as an input of any task, nor as an output of
    /// a completed one.
    ///
    /// # Errors
    ///
    /// Tasks that cannot be read are an error, and not a reason to call everything orphaned.
    pub fn find_orphaned_content(
        &self,
    ) -> Result<impl Iterator<Item = Result<ContentRef<'_>, ReadError>>, ReadError> {
        let wanted = self.content_in_use()?;
        let unpinned = self.content().select(|chunk| {
            let pinned = Flag::of(chunk, content::PINNED);
            move |row| pinned.get(row) != Some(true)
        });
        Ok(unpinned.filter(move |item| {
            item.as_ref()
                .map_or(true, |item| !wanted.contains(item.cid()))
        }))
    }

    /// Each item's CID, and who provides it, as stored; `None` where that is null.
    pub fn get_content_availability_map(
        &self,
    ) -> impl Iterator<Item = Result<(&str, Option<Texts<'_>>), ReadError>> {
        self.content()
            .iter()
            .map(|item| item.map(|item| (item.cid(), item.providers())))
    }

    /// The CIDs that tasks refer to.
    fn content_in_use(&self) -> Result<HashSet<&str>, ReadError> {
        let mut wanted = HashSet::new();
        for chunk in self.tasks().table().chunks() {
            let chunk = chunk?;
            let status = Text::of(chunk, tasks::STATUS);
            let input = Text::of(chunk, tasks::INPUT_CID);
            let inputs = TextLists::of(chunk, tasks::INPUT_CIDS);
            let output = Text::of(chunk, tasks::OUTPUT_CID);
            let outputs = TextLists::of(chunk, tasks::OUTPUT_CIDS);
            for row in chunk.rows() {
                wanted.extend(input.get(row));
                wanted.extend(inputs.get(row));
                if status.is(row, "completed") {
                    wanted.extend(output.get(row));
                    wanted.extend(outputs.get(row));
                }
            }
        }
        Ok(wanted)
    }
}
