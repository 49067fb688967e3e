//! The outcomes of segments that are gone: `<first>-<last>.outcomes`, bytes in docs/format.md, section 11.
//!
//! Written whole under another name, synced and renamed, so that a file of the name is complete.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::entry::Outcome;
use crate::log::LogError;
use crate::log::bytes::{Bytes, put_varint};
use crate::log::{Disk, open_to_read};

const MAGIC: [u8; 8] = *b"SHWDOUT\0";
const VERSION: u32 = 1;
const HEADER: usize = 32;

/// A file of outcomes, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutcomesFile {
    pub(crate) path: PathBuf,
    /// Sequences of the entries whose outcomes it has, as far as the window reaches back.
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Those that are there, in order, without those that another one covers.
pub(crate) fn list_files(dir: &Path) -> Result<(Vec<OutcomesFile>, Vec<PathBuf>), LogError> {
    let read = |source| LogError::Io {
        doing: "list",
        path: dir.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for item in fs::read_dir(dir).map_err(read)? {
        let path = item.map_err(read)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let range = name.and_then(|name| name.strip_suffix(".outcomes")?.split_once('-'));
        let number = |text: &str| {
            let digits = text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        if let Some((first, last)) = range
            && let (Some(first), Some(last)) = (number(first), number(last))
        {
            files.push(OutcomesFile { path, first, last });
        }
    }
    files.sort_by_key(|file| (file.first, std::cmp::Reverse(file.last)));
    let (mut kept, mut covered) = (Vec::<OutcomesFile>::new(), Vec::new());
    for file in files {
        if kept.last().is_some_and(|before| file.last <= before.last) {
            covered.push(file.path);
        } else {
            kept.push(file);
        }
    }
    Ok((kept, covered))
}

/// Reads one.
pub(crate) fn read_file(file: &OutcomesFile) -> Result<Vec<Outcome>, LogError> {
    let bad = |reason: String| LogError::Outcomes {
        path: file.path.clone(),
        reason,
    };
    let mut bytes = Vec::new();
    open_to_read(&file.path)
        .and_then(|mut opened| opened.read_to_end(&mut bytes))
        .map_err(|source| LogError::Io {
            doing: "read",
            path: file.path.clone(),
            source,
        })?;
    let (header, body) = bytes
        .split_at_checked(HEADER)
        .ok_or_else(|| bad("it is too short".to_owned()))?;
    let field = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    if header[..8] != MAGIC {
        return Err(bad("it is no file of outcomes".to_owned()));
    }
    if header[8..12] != VERSION.to_le_bytes() {
        return Err(bad("it is of another version: upgrade Sherwood".to_owned()));
    }
    let sum = crc32c::crc32c_append(crc32c::crc32c(&header[16..]), body);
    if header[12..16] != sum.to_le_bytes() {
        return Err(bad("its checksum is wrong".to_owned()));
    }
    if (field(16), field(24)) != (file.first, file.last) {
        return Err(bad("it has another file's name".to_owned()));
    }
    let mut body = Bytes::new(body);
    let read = |body: &mut Bytes<'_>| {
        let count = body.count()?;
        let outcomes: Result<Vec<_>, _> = (0..count).map(|_| super::take_outcome(body)).collect();
        outcomes
    };
    let outcomes = read(&mut body).map_err(|malformed| bad(malformed.to_string()))?;
    if body.left() > 0 {
        return Err(bad("bytes behind its end".to_owned()));
    }
    Ok(outcomes)
}

/// Writes one, durably.
pub(crate) fn write_file<'o>(
    disk: &dyn Disk,
    dir: &Path,
    (first, last): (u64, u64),
    outcomes: impl ExactSizeIterator<Item = &'o Outcome>,
) -> std::io::Result<OutcomesFile> {
    let mut body = Vec::new();
    put_varint(&mut body, outcomes.len() as u64);
    for outcome in outcomes {
        super::put_outcome(&mut body, outcome);
    }
    let mut bytes = vec![0; HEADER];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&first.to_le_bytes());
    bytes[24..32].copy_from_slice(&last.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[16..]), &body);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes.append(&mut body);
    let path = dir.join(format!("{first:020}-{last:020}.outcomes"));
    crate::log::write_whole(disk, dir, &path, &bytes)?;
    Ok(OutcomesFile { path, first, last })
}
