//! Nodes, by what they are.

use arrow_array::types::Int32Type;

use crate::columns::nodes::resources;
use crate::columns::{Structs, Text, TextLists, nodes};
use crate::error::ReadError;
use crate::rows::{NodeRef, Rows};
use crate::snapshot::Snapshot;

impl Snapshot {
    /// All nodes.
    #[must_use]
    pub fn get_all_nodes(&self) -> Rows<'_, NodeRef<'_>> {
        self.nodes()
    }

    /// The node with this id.
    pub fn get_node_by_id(&self, id: &str) -> Result<Option<NodeRef<'_>>, ReadError> {
        self.node(id)
    }

    /// The nodes of a role: `master`, `worker`, `leecher`, or what else the cluster uses.
    pub fn find_nodes_by_role<'s>(
        &'s self,
        role: &str,
    ) -> impl Iterator<Item = Result<NodeRef<'s>, ReadError>> {
        self.nodes().select(move |chunk| {
            let roles = Text::of(chunk, nodes::ROLE);
            move |row| roles.is(row, role)
        })
    }

    /// The nodes that list a capability.
    pub fn find_nodes_by_capability<'s>(
        &'s self,
        capability: &str,
    ) -> impl Iterator<Item = Result<NodeRef<'s>, ReadError>> {
        self.nodes().select(move |chunk| {
            let lists = TextLists::of(chunk, nodes::CAPABILITIES);
            move |row| lists.contain(row, capability)
        })
    }

    /// The nodes that have GPUs, and whose GPUs are available, whatever their role and status.
    pub fn find_nodes_with_gpu(&self) -> impl Iterator<Item = Result<NodeRef<'_>, ReadError>> {
        self.nodes().select(|chunk| {
            let of = Structs::of(chunk, nodes::RESOURCES);
            let count = of.number::<Int32Type>(resources::GPU_COUNT);
            let available = of.flag(resources::GPU_AVAILABLE);
            move |row| {
                available.get(row) == Some(true) && count.get(row).is_some_and(|count| count > 0)
            }
        })
    }
}
