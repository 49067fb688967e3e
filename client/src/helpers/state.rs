//! The state as a whole.

use arrow_array::RecordBatch;
use sherwood_shared::state::State;

use crate::error::ReadError;
use crate::snapshot::Snapshot;

/// What [`Snapshot::get_cluster_metadata`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// The cluster.
    pub cluster_id: String,
    /// Its master, if it has one.
    pub master_id: Option<String>,
    /// When the state last changed, in milliseconds since the epoch.
    pub updated_at: Option<i64>,
    /// Nodes.
    pub node_count: u64,
    /// Tasks.
    pub task_count: u64,
    /// Content items.
    pub content_count: u64,
}

impl Snapshot {
    /// Whose state it is, when it changed, and how much it holds.
    pub fn get_cluster_metadata(&self) -> Result<ClusterMetadata, ReadError> {
        Ok(ClusterMetadata {
            cluster_id: self.cluster_id()?,
            master_id: self.master_id()?,
            updated_at: self.updated_at_ms()?,
            node_count: self.nodes().len(),
            task_count: self.tasks().len(),
            content_count: self.content().len(),
        })
    }

    /// The document's table of one row. Copies everything: [`Snapshot::table`] does not.
    pub fn get_cluster_state(&self) -> Result<RecordBatch, ReadError> {
        self.to_document()
    }

    /// Nodes, tasks and content as a flat table each, which is what data frames are made of (the document's
    /// `get_cluster_state_as_pandas`). Copies, but a table of one chunk.
    pub fn get_cluster_state_as_tables(&self) -> Result<State, ReadError> {
        self.to_state()
    }
}
