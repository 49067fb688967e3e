//! One state of the cluster: immutable, shared, kept as long as one likes.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_select::concat::concat_batches;
use sherwood_shared::batch::BatchDecoder;
use sherwood_shared::document;
use sherwood_shared::file::{FileId, SnapshotFile};
use sherwood_shared::footer;
use sherwood_shared::root::{ROOT_COLUMN, Root};
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;

use crate::error::{Damage, ReadError};
#[cfg(feature = "parquet")]
use crate::import::{self, ImportError};
use crate::regions::Regions;
use crate::rows::{ContentRef, NodeRef, RowRef, Rows, TaskRef};
use crate::table::Table;

/// Rows a chunk of a table on the heap: enough to amortise, few enough to stay in cache.
const HEAP_ROWS_PER_CHUNK: usize = 8192;

/// One state of the cluster, whole and unchanging.
///
/// Cloning is cheap. While one is held its memory stays, whatever the daemon does: it
/// keeps its regions leased, and gives them back when the last clone and the last
/// array cut from it are gone. It never blocks the daemon.
#[derive(Clone, Debug)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    generation: u64,
    history: [u8; 16],
    published_at_ms: Option<u64>,
    state_dir: Option<FileId>,
    schema_version: u32,
    /// First byte of the Arrow root, and where its footer ends.
    root_at: (u64, u64),
    regions: Arc<Regions>,
    cluster: OnceLock<RecordBatch>,
    tables: [Table; 3],
}

impl Snapshot {
    /// What `root` describes, in leased or copied `regions`.
    pub(crate) fn mapped(
        root: Root,
        end: u64,
        regions: Arc<Regions>,
        file: &SnapshotFile,
        old: Option<&Snapshot>,
    ) -> Result<Self, ReadError> {
        let root_at = (root.arrow_at, end);
        let [nodes, tasks, content] = root.tables;
        let table =
            |id: TableId, root| Table::mapped(id, root, &regions, old.map(|old| old.table(id)));
        let tables = [
            table(TableId::Nodes, nodes)?,
            table(TableId::Tasks, tasks)?,
            table(TableId::Content, content)?,
        ];
        let inner = Inner {
            generation: root.generation,
            history: file.constants().history,
            published_at_ms: Some(root.published_at_ms),
            state_dir: Some(root.state_dir),
            schema_version: root.schema_version,
            root_at,
            regions,
            cluster: OnceLock::new(),
            tables,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The same type on the heap, of a state that was read without a daemon.
    ///
    /// Its generation is 0 and its history all zeros: it is not part of any.
    pub fn from_state(state: &State) -> Result<Self, ReadError> {
        let regions = Arc::new(Regions::default());
        let damaged = |source| regions.damaged(0, source);
        let table = |id| Table::on_heap(id, state.table(id), HEAP_ROWS_PER_CHUNK).map_err(damaged);
        let tables = [
            table(TableId::Nodes)?,
            table(TableId::Tasks)?,
            table(TableId::Content)?,
        ];
        let inner = Inner {
            generation: 0,
            history: [0; 16],
            published_at_ms: None,
            state_dir: None,
            schema_version: sherwood_shared::schema::SCHEMA_VERSION,
            root_at: (0, 0),
            regions: Arc::clone(&regions),
            cluster: OnceLock::from(state.cluster.clone()),
            tables,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Reads a Parquet state (feature `parquet`, on by default), without a daemon. Costs with the state's size, each time.
    #[cfg(feature = "parquet")]
    pub fn read_parquet(path: impl AsRef<Path>) -> Result<Self, ParquetError> {
        let state = import::read_parquet(path.as_ref(), None)?;
        Ok(Self::from_state(&state)?)
    }

    pub(crate) fn regions(&self) -> &Arc<Regions> {
        &self.inner.regions
    }

    /// Counts publishes within [`history`](Self::history), from 1; never goes back in it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// Names the history that generations count in: a state restored from elsewhere
    /// starts a new one.
    #[must_use]
    pub fn history(&self) -> [u8; 16] {
        self.inner.history
    }

    /// Are both the same state: the same generation of one history, or the same read of a Parquet file?
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let name = |snapshot: &Self| (snapshot.generation(), snapshot.history());
        let is_published = !self.is_on_heap() && !other.is_on_heap();
        Arc::ptr_eq(&self.inner, &other.inner) || is_published && name(self) == name(other)
    }

    /// When the daemon published it, by the daemon's wall clock; `None` on the heap.
    #[must_use]
    pub fn published_at(&self) -> Option<SystemTime> {
        let since = Duration::from_millis(self.inner.published_at_ms?);
        SystemTime::UNIX_EPOCH.checked_add(since)
    }

    /// How long ago it was published, by this host's wall clock; zero if that clock
    /// says it lies ahead. A quiet cluster's snapshot grows old without being stale:
    /// ask [`Reader::liveness`](crate::Reader::liveness) whether a daemon is alive.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let published = self.published_at()?;
        Some(
            SystemTime::now()
                .duration_since(published)
                .unwrap_or_default(),
        )
    }

    /// Version of the tables' schema: [`sherwood_shared::schema`].
    #[must_use]
    pub fn schema_version(&self) -> u32 {
        self.inner.schema_version
    }

    /// The state directory this snapshot was made from.
    #[must_use]
    pub fn state_dir(&self) -> Option<FileId> {
        self.inner.state_dir
    }

    /// Does it stand for the state in `directory`? Not if that is a copy, or was
    /// restored from elsewhere: then the snapshot is another cluster's life.
    #[must_use]
    pub fn stands_for(&self, directory: &Path) -> bool {
        let found = fs::metadata(directory)
            .ok()
            .map(|found| FileId::from(&found));
        found.is_some() && found == self.inner.state_dir
    }

    /// Is it on the heap, read from Parquet, rather than shared with the daemon?
    #[must_use]
    pub fn is_on_heap(&self) -> bool {
        self.inner.regions.file().is_none()
    }

    /// The cluster table: one row, `cluster_id`, `master_id`, `updated_at`, then columns
    /// that others added to the document.
    pub fn cluster(&self) -> Result<RecordBatch, ReadError> {
        if let Some(cluster) = self.inner.cluster.get() {
            return Ok(cluster.clone());
        }
        let cluster = self.decode_cluster()?;
        Ok(self.inner.cluster.get_or_init(|| cluster).clone())
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Result<String, ReadError> {
        Ok(self.cluster_text("cluster_id")?.unwrap_or_default())
    }

    /// The master's node id, if the cluster has one.
    pub fn master_id(&self) -> Result<Option<String>, ReadError> {
        self.cluster_text("master_id")
    }

    /// When the state last changed, by its writer's clock, in milliseconds since the
    /// Unix epoch.
    pub fn updated_at_ms(&self) -> Result<Option<i64>, ReadError> {
        let cluster = self.cluster()?;
        let column = cluster.column_by_name("updated_at");
        let column =
            column.and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>());
        Ok(column.and_then(|column| column.iter().next().flatten()))
    }

    /// One of the three keyed tables.
    #[must_use]
    pub fn table(&self, id: TableId) -> &Table {
        &self.inner.tables[id as usize]
    }

    /// The nodes as typed rows, in key order.
    #[must_use]
    pub fn nodes(&self) -> Rows<'_, NodeRef<'_>> {
        Rows::new(self.table(TableId::Nodes))
    }

    /// The tasks as typed rows, in key order.
    #[must_use]
    pub fn tasks(&self) -> Rows<'_, TaskRef<'_>> {
        Rows::new(self.table(TableId::Tasks))
    }

    /// The content as typed rows, in key order.
    #[must_use]
    pub fn content(&self) -> Rows<'_, ContentRef<'_>> {
        Rows::new(self.table(TableId::Content))
    }

    /// The node with this id.
    pub fn node(&self, id: &str) -> Result<Option<NodeRef<'_>>, ReadError> {
        self.row(id)
    }

    /// The task with this id.
    pub fn task(&self, id: &str) -> Result<Option<TaskRef<'_>>, ReadError> {
        self.row(id)
    }

    /// The content item with this CID.
    pub fn content_item(&self, cid: &str) -> Result<Option<ContentRef<'_>>, ReadError> {
        self.row(cid)
    }

    /// The whole state as flat tables. Copies, but a table of one chunk, which goes on
    /// sharing the daemon's memory.
    pub fn to_state(&self) -> Result<State, ReadError> {
        let table = |id| {
            let table = self.table(id);
            let batches = table.batches().collect::<Result<Vec<_>, _>>()?;
            let schema = table.schema()?;
            concat_batches(&schema, &batches).map_err(|error| {
                let what = format!("cannot be put together: {error}");
                self.inner.regions.damaged(
                    0,
                    Damage::Table {
                        table: TableId::name(id),
                        what,
                    },
                )
            })
        };
        let tables = [
            table(TableId::Nodes)?,
            table(TableId::Tasks)?,
            table(TableId::Content)?,
        ];
        Ok(State {
            cluster: self.cluster()?,
            tables,
        })
    }

    /// The document's one-row table. Copies.
    pub fn to_document(&self) -> Result<RecordBatch, ReadError> {
        let state = self.to_state()?;
        document::to_document(&state).map_err(|error| {
            let what = format!("cannot become a document: {error}");
            self.inner.regions.damaged(
                0,
                Damage::Table {
                    table: "cluster",
                    what,
                },
            )
        })
    }

    fn row<'s, R: RowRef<'s>>(&'s self, key: &str) -> Result<Option<R>, ReadError> {
        Rows::new(self.table(R::TABLE)).get(key)
    }

    fn cluster_text(&self, column: &str) -> Result<Option<String>, ReadError> {
        let cluster = self.cluster()?;
        let column = cluster.column_by_name(column);
        let column = column.and_then(|column| column.as_string_opt::<i32>());
        Ok(column
            .and_then(|column| column.iter().next().flatten())
            .map(str::to_owned))
    }

    /// The Arrow root without its last column, which is ours.
    fn decode_cluster(&self) -> Result<RecordBatch, ReadError> {
        let regions = &self.inner.regions;
        let (start, end) = self.inner.root_at;
        let damaged = |source| regions.damaged(start, source);
        let no_root = |what: &str| {
            damaged(Damage::Table {
                table: "cluster",
                what: format!("has {what}"),
            })
        };
        let footer = regions.footer(end)?;
        let footer = footer::parse(&footer).map_err(|source| damaged(Damage::Footer(source)))?;
        let [block] = footer.blocks[..] else {
            return Err(no_root("not one batch"));
        };
        let block_end = block.end().ok_or_else(|| no_root("an endless batch"))?;
        let bytes = regions.buffer(block.offset, block_end, "the root's batch")?;
        let decoder = BatchDecoder::new(Arc::new(footer.schema));
        let batch = decoder.decode(&bytes, block.meta_bytes);
        let batch = batch.map_err(|source| damaged(source.into()))?;
        // Ours is the last; somebody else's column may have the same name.
        let schema = batch.schema();
        let own = schema
            .fields()
            .last()
            .filter(|field| field.name() == ROOT_COLUMN);
        own.ok_or_else(|| no_root("no root column"))?;
        let columns: Vec<usize> = (0..batch.num_columns() - 1).collect();
        if batch.num_rows() != 1 {
            return Err(no_root("not one row"));
        }
        batch
            .project(&columns)
            .map_err(|_| no_root("columns that do not fit"))
    }
}

/// Why a Parquet state did not become a snapshot.
#[cfg(feature = "parquet")]
#[derive(Debug, thiserror::Error)]
pub enum ParquetError {
    /// It could not be read, or is not a state.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Its tables do not fit the schema.
    #[error(transparent)]
    Read(#[from] ReadError),
}
