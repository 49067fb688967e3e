//! Looking at all of a log and saying what is whole. Changes nothing, and does not stop at damage.

use std::path::{Path, PathBuf};

use super::chain::{Chain, TornTail};
use super::cursor::{Cursor, End};
use super::error::{LogError, Sequences};
use super::payload::Decoder;
use super::read::{in_all, undecodable};
use super::segment::SegmentId;
use crate::outcomes::{list_files, read_file};

/// What there is of a log, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Report {
    /// In order.
    pub segments: Vec<SegmentReport>,
    /// Files of outcomes of released segments: path, first and last sequence, how many they remember.
    pub outcomes: Vec<(PathBuf, u64, u64, usize)>,
    /// A record that was being written when the log stopped; no damage.
    pub torn: Option<TornTail>,
    /// Everything that is wrong; none: the log is whole.
    pub problems: Vec<LogError>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its file.
    pub path: PathBuf,
    /// Which life of the file this is.
    pub id: SegmentId,
    /// The sequence it begins with.
    pub first_sequence: u64,
    /// How many good records follow each other from the first on.
    pub records: u64,
    /// Bytes of those, the header included.
    pub used_bytes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Generation of the last good record; 0 without one.
    pub last_generation: u64,
}

/// Looks at every segment, every record and every file of outcomes in `dir`.
///
/// # Errors
///
/// Only if the directory cannot be listed; what is wrong in it is in the report.
pub fn verify(dir: &Path) -> Result<Report, LogError> {
    let chain = Chain::survey(dir)?;
    let mut report = Report::default();
    for (at, link) in chain.segments.iter().enumerate() {
        let next_first = chain.segments.get(at + 1);
        let next_first = next_first.map(|link| link.header.first_sequence);
        match segment(&link.path, next_first, &mut report) {
            Ok(found) => report.segments.push(found),
            Err(error) => report.problems.push(error),
        }
    }
    report.problems.extend(chain.into_problems());
    let problems = report.problems.drain(..);
    report.problems = problems.map(|error| in_all(dir, error)).collect();
    if dir.is_dir() {
        for file in list_files(dir)?.0 {
            match read_file(&file) {
                Ok(found) => {
                    let row = (file.path, file.first, file.last, found.len());
                    report.outcomes.push(row);
                }
                Err(error) => report.problems.push(error),
            }
        }
    }
    Ok(report)
}

fn segment(
    path: &Path,
    next_first: Option<u64>,
    report: &mut Report,
) -> Result<SegmentReport, LogError> {
    let mut cursor = Cursor::open(path)?;
    let mut decoder = Decoder::default();
    let first = cursor.header.first_sequence;
    let (mut next, mut last_generation) = (first, 0);
    while cursor.advance(next)? {
        let Some(record) = cursor.record() else { break };
        if let Err(malformed) = decoder.entry(&record.header, record.payload) {
            report.problems.push(undecodable(path, &record, malformed));
        }
        last_generation = record.header.generation;
        next += 1;
    }
    let used_bytes = cursor.offset;
    match next_first {
        Some(next_first) if next_first == next => {}
        Some(next_first) => report.problems.push(LogError::Damaged {
            path: path.to_owned(),
            offset: used_bytes,
            first: next,
            last: next_first.saturating_sub(1),
            also: Sequences::default(),
        }),
        None => match cursor.end(next)? {
            End::Clean | End::Torn { .. } if cursor.len() < cursor.header.bytes => {
                report.problems.push(LogError::Cut {
                    path: path.to_owned(),
                    found: cursor.len(),
                    expected: cursor.header.bytes,
                    first: next,
                });
            }
            End::Clean => {}
            End::Torn { to } => {
                report.torn = Some(TornTail {
                    path: path.to_owned(),
                    sequence: next,
                    offset: used_bytes,
                    bytes: to - used_bytes,
                });
            }
            End::Damaged { next: found, .. } => {
                let error = LogError::Damaged {
                    path: path.to_owned(),
                    offset: used_bytes,
                    first: next,
                    last: found.saturating_sub(1),
                    also: Sequences::default(),
                };
                report.problems.push(error);
            }
        },
    }
    Ok(SegmentReport {
        path: path.to_owned(),
        id: cursor.header.id,
        first_sequence: first,
        records: next - first,
        used_bytes,
        bytes: cursor.len(),
        last_generation,
    })
}
