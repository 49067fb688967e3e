//! A segment: a file of records, its header and its name.
//!
//! The byte table is docs/format.md, section 11. The name is the sequence of its first record, so that a listing is in
//! order; the header says which file it really is.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::error::LogError;
use super::record::{id_at, u32_at, u64_at};

/// Bytes of a segment's header; the first record begins here.
pub(super) const SEGMENT_HEADER: usize = 128;
const MAGIC: [u8; 8] = *b"SHWDLOG\0";
/// The version of everything in a segment.
pub const LOG_FORMAT: u32 = 1;

/// Names one life of a segment's file; random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SegmentId(pub [u8; 16]);

impl SegmentId {
    pub(super) fn random() -> Self {
        Self(*uuid::Uuid::new_v4().as_bytes())
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which life of which file this is.
    pub id: SegmentId,
    /// The segment before it; zeros in the first of a log.
    pub previous: SegmentId,
    /// The history in which the generations of its entries count (L13).
    pub history: [u8; 16],
    /// Sequence of its first record.
    pub first_sequence: u64,
    /// The newest generation that the entries before it published: who has seen it lacks nothing before this segment.
    pub base_generation: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// When it was begun, by the daemon's clock: milliseconds since the epoch.
    pub created_at_ms: i64,
}

impl SegmentHeader {
    pub(super) fn to_bytes(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&LOG_FORMAT.to_le_bytes());
        out[16..32].copy_from_slice(&self.id.0);
        out[32..48].copy_from_slice(&self.previous.0);
        out[48..64].copy_from_slice(&self.history);
        out[64..72].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[72..80].copy_from_slice(&self.base_generation.to_le_bytes());
        out[80..88].copy_from_slice(&self.bytes.to_le_bytes());
        out[88..96].copy_from_slice(&self.created_at_ms.to_le_bytes());
        let sum = crc32c::crc32c(&out);
        out[12..16].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// The header that begins a segment. `Err` says what is wrong with it.
    pub(super) fn parse(bytes: &[u8; SEGMENT_HEADER]) -> Result<Self, String> {
        if bytes[0..8] != MAGIC {
            return Err("it does not begin with the magic of a log segment".to_owned());
        }
        let version = u32_at(bytes, 8);
        if version != LOG_FORMAT {
            return Err(format!(
                "it has format version {version}, and this Sherwood knows {LOG_FORMAT}"
            ));
        }
        let mut zeroed = *bytes;
        zeroed[12..16].fill(0);
        if crc32c::crc32c(&zeroed) != u32_at(bytes, 12) {
            return Err("the checksum of its header is wrong".to_owned());
        }
        Ok(Self {
            id: SegmentId(id_at(bytes, 16)),
            previous: SegmentId(id_at(bytes, 32)),
            history: id_at(bytes, 48),
            first_sequence: u64_at(bytes, 64),
            base_generation: u64_at(bytes, 72),
            bytes: u64_at(bytes, 80),
            created_at_ms: u64_at(bytes, 88).cast_signed(),
        })
    }
}

/// A segment's name.
pub(super) fn segment_path(dir: &Path, first_sequence: u64) -> PathBuf {
    dir.join(format!("{first_sequence:020}.log"))
}

/// The first sequences of the segments that are there, ascending.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, LogError> {
    let read = |source| LogError::Io {
        doing: "list",
        path: dir.to_owned(),
        source,
    };
    let mut firsts = Vec::new();
    for item in fs::read_dir(dir).map_err(read)? {
        let name = item.map_err(read)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".log"));
        let digits = digits.filter(|d| d.len() == 20 && d.bytes().all(|b| b.is_ascii_digit()));
        if let Some(first) = digits.and_then(|digits| digits.parse().ok()) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Opens a file to read it. Links are not followed.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// A segment's header, from its file.
pub(super) fn read_header(path: &Path, file: &File) -> Result<SegmentHeader, LogError> {
    let mut bytes = [0; SEGMENT_HEADER];
    let read = file.read_exact_at(&mut bytes, 0);
    let bad = |reason| LogError::SegmentHeader {
        path: path.to_owned(),
        reason,
    };
    match read {
        Ok(()) => SegmentHeader::parse(&bytes).map_err(bad),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(bad("it is shorter than a segment's header".to_owned()))
        }
        Err(source) => Err(LogError::Io {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}
