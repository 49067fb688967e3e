//! Snapshot files: header, root, then every table.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_buffer::Buffer;
use sherwood_shared::batch::{BatchDecoder, BlockAt};
use sherwood_shared::footer::{self, Footer, TRAILER_BYTES, footer_bytes};
use sherwood_shared::layout::{
    ALIGN, CONSTANTS_BYTES, Constants, HEAD_AT, HEADER_BYTES, INTACT_FROM_AT,
};
use sherwood_shared::root::{ROOT_COLUMN, Root, root_batch};
use sherwood_shared::schema::{TableId, check_version, cluster_schema};

use super::copy::{Copy, word};
use super::table::same_fields;
use super::{Kind, Report, VerifyError, chain};

/// Checks that may be overtaken by a daemon before we give up.
const ATTEMPTS: usize = 16;

/// Checks the newest generation of a snapshot file, all of it:
///
/// - the header, and that the file consists of whole regions;
/// - the root record, and that the Arrow root says the same;
/// - every part's footer, and that the chunk index says the same;
/// - every chunk, with every value's validity; keys ascending, without repetition, in the
///   place that index and root give them; numbers of rows;
/// - that all of these lie in the root's regions, none across two, no two on the same bytes.
///
/// Of a live daemon's file, one generation is checked, whatever is published meanwhile.
///
/// # Errors
///
/// [`VerifyError`], if the file cannot be looked at. What is wrong *in* it is in the report.
pub fn verify_snapshot(path: &Path) -> Result<Report, VerifyError> {
    for _ in 0..ATTEMPTS {
        let mut check = Check {
            copy: Copy::open(path)?,
            constants: None,
            regions: Vec::new(),
            extents: Vec::new(),
            report: Report::new(Kind::Snapshot),
        };
        let Some(page) = check.copy.read(0, HEADER_BYTES as u64)? else {
            let len = check.copy.len();
            let what = format!("truncated: {len} bytes, and the header alone has {HEADER_BYTES}");
            check.report.find(len, what);
            return Ok(check.report);
        };
        check.file(&page)?;
        if check.copy.is_intact(&page, check.report.generation)? {
            return Ok(check.report);
        }
    }
    Err(VerifyError::Overtaken {
        path: path.to_owned(),
    })
}

/// One look at one generation.
pub(super) struct Check {
    pub(super) copy: Copy,
    constants: Option<Constants>,
    /// Those of the root.
    regions: Vec<u32>,
    extents: Vec<Extent>,
    pub(super) report: Report,
}

/// Bytes that the generation consists of.
struct Extent {
    start: u64,
    end: u64,
    what: String,
}

impl Check {
    fn file(&mut self, page: &Buffer) -> Result<(), VerifyError> {
        let Some(constants) = self.header(page) else {
            return Ok(());
        };
        let head = self.copy.head(page);
        let end = head.end_bytes();
        let Some(region) = end.checked_sub(1).map(|last| constants.region_of(last)) else {
            self.report.find(
                HEAD_AT as u64,
                "nothing is published in it: its daemon is starting, or died before it was done",
            );
            return Ok(());
        };
        let region_end = region.map(|region| {
            let start = constants.region_start(region);
            start.saturating_add(constants.region_bytes)
        });
        let outside = "the head points outside the file";
        let Some(region_end) = region_end.filter(|_| end < self.copy.len()) else {
            self.report.find(HEAD_AT as u64, outside);
            return Ok(());
        };
        let (root, record_bytes) = match self.copy.record(end, region_end)? {
            None => {
                self.report.find(HEAD_AT as u64, outside);
                return Ok(());
            }
            Some((Err(error), _)) => {
                self.report.find(end, chain(&error));
                return Ok(());
            }
            Some((Ok(root), bytes)) => (root, bytes),
        };
        self.report.generation = Some(root.generation);
        self.report.rows = [0, 1, 2].map(|table: usize| root.tables[table].rows);
        self.report.regions = root.regions.len();
        self.report.live_bytes = root.live_bytes;
        if u64::from(head.generation_low()) != root.generation & u64::from(u32::MAX) {
            let what = format!(
                "the head is of a generation that ends in {}, and the root of generation {}",
                head.generation_low(),
                root.generation
            );
            self.report.find(HEAD_AT as u64, what);
        }
        let intact_from = word(page, INTACT_FROM_AT);
        if intact_from > root.generation && self.copy.head(page).raw() == word(page, HEAD_AT) {
            let what = format!(
                "generations below {intact_from} are given up, and the newest is {}",
                root.generation
            );
            self.report.find(INTACT_FROM_AT as u64, what);
        }
        self.root(&root, end, &constants);
        self.arrow_root(&root, end, record_bytes, &constants)?;
        for id in TableId::ALL {
            self.table(id, &root.tables[id as usize], root.schema_version)?;
        }
        self.live_bytes(&root, end);
        self.no_overlap();
        Ok(())
    }

    fn header(&mut self, page: &Buffer) -> Option<Constants> {
        let constants = page.first_chunk::<{ CONSTANTS_BYTES + 4 }>()?;
        let constants = match Constants::from_bytes(constants) {
            Ok(constants) => constants,
            Err(error) => {
                self.report.find(0, chain(&error));
                return None;
            }
        };
        self.report.cluster_id = Some(constants.cluster_id.clone());
        let len = self.copy.len();
        let behind = len.checked_sub(constants.data_start);
        if behind.is_none_or(|bytes| !bytes.is_multiple_of(constants.region_bytes)) {
            let what = format!(
                "the file has {len} bytes, which is not a whole number of regions of {} behind {}",
                constants.region_bytes, constants.data_start
            );
            self.report.find(len, what);
        }
        self.constants = Some(constants.clone());
        Some(constants)
    }

    /// What the record says by itself.
    fn root(&mut self, root: &Root, end: u64, constants: &Constants) {
        if let Err(error) = check_version(root.schema_version) {
            self.report.find(end, chain(&error));
        }
        if !root.regions.is_sorted_by(|a, b| a < b) {
            self.report.find(end, "the root's regions do not ascend");
        }
        for &region in &root.regions {
            let start = constants.region_start(region);
            let region_end = start.saturating_add(constants.region_bytes);
            if region_end > self.copy.len() {
                let what = format!(
                    "region {region} ends at byte {region_end}, and the file at {}",
                    self.copy.len()
                );
                self.report.find(start, what);
            }
        }
        self.regions.clone_from(&root.regions);
        self.regions.sort_unstable();
    }

    /// The root as any Arrow implementation reads it must say what the record says.
    fn arrow_root(
        &mut self,
        root: &Root,
        end: u64,
        record_bytes: u64,
        constants: &Constants,
    ) -> Result<(), VerifyError> {
        let what = "the root";
        let start = root.arrow_at;
        if !self.place(start, end.saturating_add(record_bytes), what) {
            return Ok(());
        }
        let bytes = self.copy.read(start, end)?;
        let Some((footer, footer_at)) = bytes.and_then(|bytes| self.footer(&bytes, start, what))
        else {
            return Ok(());
        };
        let [block] = footer.blocks[..] else {
            let found = footer.blocks.len();
            self.report.find(
                footer_at,
                format!("the root's footer names {found} batches, not one"),
            );
            return Ok(());
        };
        if block.offset != start || block.end().is_none_or(|end| end > footer_at) {
            let what = format!("the root's footer names a batch at byte {}", block.offset);
            self.report.find(footer_at, what);
            return Ok(());
        }
        let decoder = BatchDecoder::new(Arc::new(footer.schema));
        let Some(batch) = self.decode(&decoder, block, what)? else {
            return Ok(());
        };
        if let Err(what) = same_root(&batch, root, constants) {
            self.report.find(start, what);
        }
        Ok(())
    }

    /// The footer at the end of `bytes`, which begin at `start`, and where it begins.
    pub(super) fn footer(&mut self, bytes: &[u8], start: u64, what: &str) -> Option<(Footer, u64)> {
        let end = start + bytes.len() as u64;
        let len = bytes
            .last_chunk::<TRAILER_BYTES>()
            .and_then(|trailer| footer_bytes(trailer).ok())
            .filter(|&len| len <= bytes.len());
        let Some(len) = len else {
            self.report
                .find(end, format!("no footer of {what} ends here"));
            return None;
        };
        let at = end - len as u64;
        match guarded(|| footer::parse(bytes)) {
            Ok(Ok(footer)) => Some((footer, at)),
            Ok(Err(error)) => {
                let what = format!("the footer of {what} is damaged: {}", chain(&error));
                self.report.find(at, what);
                None
            }
            Err(panic) => {
                let what = format!("the footer of {what} is damaged: {panic}");
                self.report.find(at, what);
                None
            }
        }
    }

    /// Decodes a batch and looks at every value of it.
    pub(super) fn decode(
        &mut self,
        decoder: &BatchDecoder,
        block: BlockAt,
        what: &str,
    ) -> Result<Option<RecordBatch>, VerifyError> {
        let bytes = match block.end() {
            Some(end) => self.copy.read(block.offset, end)?,
            None => None,
        };
        let Some(bytes) = bytes else {
            self.report
                .find(block.offset, format!("{what} lies outside the file"));
            return Ok(None);
        };
        let trouble = match guarded(|| decoder.decode_checked(&bytes, block.meta_bytes)) {
            Ok(Ok(batch)) => return Ok(Some(batch)),
            Ok(Err(error)) => chain(&error),
            Err(panic) => panic,
        };
        self.report
            .find(block.offset, format!("{what} is damaged: {trouble}"));
        Ok(None)
    }

    /// Notes that `[start, end)` is used. False, with a finding, if nothing can be read there.
    pub(super) fn place(&mut self, start: u64, end: u64, what: &str) -> bool {
        let Some(constants) = &self.constants else {
            return false;
        };
        let trouble = if start >= end {
            Some("ends before it begins".to_owned())
        } else if end > self.copy.len() {
            let len = self.copy.len();
            Some(format!("ends at byte {end}, and the file at {len}"))
        } else if !start.is_multiple_of(ALIGN) {
            Some(format!("does not begin on a multiple of {ALIGN}"))
        } else {
            match constants.region_of_range(start, end) {
                None => Some(format!("is not in one region (it ends at byte {end})")),
                Some(region) if self.regions.binary_search(&region).is_err() => Some(format!(
                    "is in region {region}, which the root does not name"
                )),
                Some(_) => None,
            }
        };
        if let Some(trouble) = trouble {
            self.report.find(start, format!("{what} {trouble}"));
            return false;
        }
        self.extents.push(Extent {
            start,
            end,
            what: what.to_owned(),
        });
        true
    }

    /// The root counts the bytes of all parts and chunks, its own not among them.
    fn live_bytes(&mut self, root: &Root, end: u64) {
        let others = self
            .extents
            .iter()
            .filter(|extent| extent.start != root.arrow_at);
        let bytes: u64 = others.map(|extent| extent.end - extent.start).sum();
        // What was damaged was reported, and is missing here.
        if bytes != root.live_bytes && self.report.is_good() {
            let what = format!(
                "the root says {} live bytes, and there are {bytes}",
                root.live_bytes
            );
            self.report.find(end, what);
        }
    }

    fn no_overlap(&mut self) {
        self.extents
            .sort_by_key(|extent| (extent.start, extent.end));
        let mut before: Option<&Extent> = None;
        for extent in &self.extents {
            if let Some(before) = before.filter(|before| before.end > extent.start) {
                let what = format!(
                    "{} and {} (which begins at byte {}) overlap",
                    extent.what, before.what, before.start
                );
                self.report.find(extent.start, what);
            }
            if before.is_none_or(|before| before.end < extent.end) {
                before = Some(extent);
            }
        }
    }
}

/// Says where the two forms of the root differ.
fn same_root(batch: &RecordBatch, root: &Root, constants: &Constants) -> Result<(), String> {
    let differ = || "the Arrow root does not say what the root record says".to_owned();
    if batch.num_rows() != 1 {
        return Err(format!(
            "the Arrow root has {} rows, not one",
            batch.num_rows()
        ));
    }
    let own = batch
        .schema_ref()
        .index_of(ROOT_COLUMN)
        .map_err(|_| format!("the Arrow root has no column {ROOT_COLUMN}"))?;
    let columns: Vec<usize> = (0..batch.num_columns()).filter(|&at| at != own).collect();
    let cluster = batch.project(&columns).map_err(|_| differ())?;
    same_fields(&cluster_schema(), cluster.schema_ref(), root.schema_version)
        .map_err(|trouble| format!("the Arrow root {trouble}"))?;
    let id = cluster
        .column_by_name("cluster_id")
        .and_then(|column| column.as_string_opt::<i32>());
    let id = id.filter(|id| id.is_valid(0)).map(|id| id.value(0));
    if id != Some(constants.cluster_id.as_str()) {
        return Err(format!(
            "the root is of cluster {:?}, and the header of {:?}",
            id.unwrap_or_default(),
            constants.cluster_id
        ));
    }
    let expected = root_batch(root, constants.history, &cluster).map_err(|_| differ())?;
    if expected.columns() != batch.columns() || expected.schema_ref() != batch.schema_ref() {
        return Err(differ());
    }
    Ok(())
}

/// Calls `decode`, and takes a panic for a finding.
///
/// The Arrow crate panics on some damaged schemas and messages. All that it touches is owned
/// by the call, so nothing is left half-changed.
fn guarded<T>(decode: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(decode)).map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the decoder panicked".to_owned())
}
