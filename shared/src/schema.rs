//! The state's schema: stub.
/// One of the three keyed tables of a state. `cluster`, the fourth, is always one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableId {
    /// Keyed by `id`.
    Nodes = 0,
    /// Keyed by `id`.
    Tasks = 1,
    /// Keyed by `cid`.
    Content = 2,
}

impl TableId {
    /// In the order of the document.
    pub const ALL: [TableId; 3] = [TableId::Nodes, TableId::Tasks, TableId::Content];
    /// `nodes`, `tasks`, `content`: the table's name, and the document's list column.
    pub fn name(self) -> &'static str {
        ["nodes", "tasks", "content"][self as usize]
    }
    /// The column that rows are sorted by and looked up with.
    pub fn key(self) -> &'static str {
        ["id", "id", "cid"][self as usize]
    }
}
