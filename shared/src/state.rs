//! A whole state on the heap: stub.
use arrow_array::RecordBatch;

use crate::schema::TableId;

/// A whole cluster state as four flat tables.
#[derive(Clone, Debug)]
pub struct State {
    /// One row: `cluster_id`, `master_id`, `updated_at`, then top-level columns that others added.
    pub cluster: RecordBatch,
    /// Indexed by `TableId as usize`; each sorted by its key, keys unique and not null.
    pub tables: [RecordBatch; 3],
}

impl State {
    /// One table.
    pub fn table(&self, table: TableId) -> &RecordBatch {
        &self.tables[table as usize]
    }
}
