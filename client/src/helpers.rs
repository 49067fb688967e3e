//! The document's helper functions, as methods of a [`Snapshot`].
//!
//! The names are those of the document's Python functions; what they answer is typed. Rows come as
//! views ([`NodeRef`](crate::NodeRef), [`TaskRef`](crate::TaskRef), [`ContentRef`](crate::ContentRef)) in the order of
//! their keys, and nothing is allocated for a row. All answers of one snapshot belong together: what changes
//! meanwhile is in the next one.
//!
//! | about | methods |
//! |---|---|
//! | the state | `get_cluster_metadata`, `get_cluster_state`, `get_cluster_state_as_tables` |
//! | nodes | `get_all_nodes`, `get_node_by_id`, `find_nodes_by_role`, `find_nodes_by_capability`, `find_nodes_with_gpu`, `get_node_resource_utilization` |
//! | tasks | `get_all_tasks`, `get_task_by_id`, `find_tasks_by_status`, `find_tasks_by_type`, `find_tasks_by_node`, `find_tasks_by_resource_requirements`, `find_available_node_for_task`, `get_task_execution_metrics`, `estimate_time_to_completion` |
//! | content | `get_all_content`, `find_content_by_cid`, `find_content_by_provider`, `find_orphaned_content`, `get_content_availability_map` |
//! | the whole | `get_cluster_status_summary`, `get_network_topology` |
//!
//! Rules that hold for all of them:
//!
//! - Null is a normal value: a field that is null matches nothing that is asked for, and counts where this says so.
//! - Text is compared exactly, with case.
//! - An error is a damaged snapshot, never a row that is not there.
//!
//! [`Snapshot`]: crate::Snapshot

mod content;
mod counts;
mod duration;
mod metrics;
mod nodes;
mod schedule;
mod state;
mod summary;
mod tasks;
mod topology;
mod utilization;

pub use self::counts::Counts;
pub use self::metrics::ExecutionMetrics;
pub use self::state::ClusterMetadata;
pub use self::summary::{
    ContentSummary, NodeSummary, ResourceSummary, Share, StatusSummary, TaskSummary,
};
pub use self::topology::{Connection, Topology};
pub use self::utilization::Utilization;
