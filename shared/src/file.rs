//! A snapshot file as a reader opens it: whom it trusts (R1, F11), how it leases (R3).
//!
//! The descriptor that is checked is the one that is used: nothing is looked up by
//! name twice, except where /proc is missing, and then device and inode are compared.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_buffer::{Buffer, MutableBuffer};
use nix::libc;
use nix::unistd::geteuid;
use thiserror::Error;

use crate::layout::{CONSTANTS_BYTES, Constants, HEADER_BYTES, HeaderError, WITNESS_AT};
use crate::lock;
use crate::mapping::{Header, Loans, Region};
use crate::pause;

/// Why a snapshot file cannot be read in place.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Nothing stands at the path.
    #[error("no snapshot at {path:?}: is sherwoodd running for this cluster?")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} snapshot {path:?}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Out of descriptors, locks, memory or address space. The file is not at fault.
    #[error(
        "out of a resource while reading snapshot {path:?}: raise the limit (ulimit -n, ulimit -v, \
         vm.max_map_count) or keep fewer snapshots"
    )]
    Resources {
        /// The file.
        path: PathBuf,
        /// Which: EMFILE, ENFILE, ENOLCK, ENOMEM, or EAGAIN of a mapping.
        #[source]
        source: io::Error,
    },
    /// Somebody else could change the file while it is read (F11).
    #[error(
        "snapshot {path:?} is not trusted: {reason}. Only a file that nobody but the daemon's \
         user can write is read in place"
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        reason: String,
    },
    /// Too short to be what its header says.
    #[error("snapshot {path:?} is truncated: {len} bytes, and {needed} are needed")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes it has.
        len: u64,
        /// Bytes it must have.
        needed: u64,
    },
    /// Not a header that this release reads.
    #[error("cannot read snapshot {path:?}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: HeaderError,
    },
    /// Its daemon has not published yet, or died before it did.
    #[error("snapshot {path:?} is still being made: nothing is published in it yet, try again")]
    Unpublished {
        /// The file.
        path: PathBuf,
    },
}

/// Device and inode: which file this is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Of the file system.
    pub device: u64,
    /// In it.
    pub inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A trusted snapshot file, its header mapped.
#[derive(Debug)]
pub struct SnapshotFile {
    file: File,
    id: FileId,
    path: PathBuf,
    constants: Constants,
    header: Header,
    /// Of the process that writes it.
    loans: Option<Loans>,
}

impl SnapshotFile {
    /// R1: opens, judges by what the descriptor says, reads the constants, maps the
    /// header.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |action| move |source| io_error(action, path, source);
        let file =
            open_read_only(path, libc::O_NOFOLLOW).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => OpenError::Missing {
                    path: path.to_owned(),
                },
                _ if source.raw_os_error() == Some(libc::ELOOP) => OpenError::Untrusted {
                    path: path.to_owned(),
                    reason: "it is a symbolic link".to_owned(),
                },
                _ => io_error("open", path, source),
            })?;
        let metadata = file.metadata().map_err(io("stat"))?;
        trust(path, &metadata)?;
        if metadata.len() < HEADER_BYTES as u64 {
            let needed = HEADER_BYTES as u64;
            return Err(OpenError::Truncated {
                path: path.to_owned(),
                len: metadata.len(),
                needed,
            });
        }
        let mut bytes = [0; CONSTANTS_BYTES + 4];
        file.read_exact_at(&mut bytes, 0).map_err(io("read"))?;
        let constants = Constants::from_bytes(&bytes).map_err(|source| OpenError::Header {
            path: path.to_owned(),
            source,
        })?;
        let header = Header::map(&file).map_err(io("map"))?;
        Ok(Self {
            id: FileId::from(&metadata),
            file,
            path: path.to_owned(),
            constants,
            header,
            loans: None,
        })
    }

    /// The same file, if it is the one that this process writes: its regions are leased like everybody's, and read where they are mapped.
    #[must_use]
    pub fn lent(mut self, id: FileId, loans: Loans) -> Self {
        self.loans = Some(loans).filter(|_| self.id == id);
        self
    }

    /// The words that change.
    #[inline]
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What never changes.
    #[must_use]
    pub fn constants(&self) -> &Constants {
        &self.constants
    }

    /// Which file it is.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does the path still lead to this file? Not if a daemon made a new one (R5).
    pub fn is_at_its_path(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|found| FileId::from(&found) == self.id)
    }

    /// Is a daemon alive behind it? Without one nothing may be leased (R1), and
    /// nothing changes any more.
    ///
    /// Asks by a lock that is given back at once, on the descriptor that the header is
    /// mapped from: the one exception to R3, of a byte that no lease covers.
    pub fn has_writer(&self) -> Result<bool, OpenError> {
        lock::is_held_exclusively(&self.file, WITNESS_AT, 1)
            .map_err(|source| io_error("look for the daemon of", &self.path, source))
    }

    /// R3: a lease on a region, which lasts as long as its mapping.
    ///
    /// `None`: the writer probes the region at this moment; look at the head again.
    /// Read nothing through it before the R2 loop says so.
    pub fn lease(&self, region: u32) -> Result<Option<Arc<Region>>, OpenError> {
        let (start, len) = self.region_range(region)?;
        let anew = self.open_anew()?;
        pause::at("reader: lock");
        match lock::try_shared(&anew, start, len as u64) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(source) => return Err(io_error("lease a region of", &self.path, source)),
        }
        pause::at("reader: map");
        let map = match self.loans.as_ref().and_then(|loans| loans.get(region)) {
            Some(loan) => Region::lent(&anew, start, loan),
            None => Region::map(&anew, start, len),
        };
        let map = map.map_err(|source| io_error("map a region of", &self.path, source))?;
        pause::at("reader: close");
        drop(anew); // the mapping keeps the lock
        // ORDER lease: the lock is taken before the head is loaded again (R3). The
        // writer stores the head and then probes (W4, W6): one of us sees the other.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(Some(Arc::new(map)))
    }

    /// A copy of a region, for a file without a live daemon. The caller checks
    /// `intact_from` afterwards.
    pub fn copy(&self, region: u32) -> Result<Arc<Region>, OpenError> {
        let (start, len) = self.region_range(region)?;
        let mut bytes = MutableBuffer::from_len_zeroed(len);
        self.file
            .read_exact_at(bytes.as_slice_mut(), start)
            .map_err(|source| io_error("copy a region of", &self.path, source))?;
        Ok(Arc::new(Region::copied(Buffer::from(bytes))))
    }

    /// Bytes of the file as of now.
    pub fn len(&self) -> Result<u64, OpenError> {
        let metadata = self.file.metadata();
        metadata
            .map(|found| found.len())
            .map_err(|source| io_error("stat", &self.path, source))
    }

    /// Never: it has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    fn region_range(&self, region: u32) -> Result<(u64, usize), OpenError> {
        let start = self.constants.region_start(region);
        let needed = start.saturating_add(self.constants.region_bytes);
        let len = self.len()?;
        if len < needed {
            return Err(OpenError::Truncated {
                path: self.path.clone(),
                len,
                needed,
            });
        }
        let bytes = usize::try_from(self.constants.region_bytes).map_err(|_| {
            let source = io::Error::from(io::ErrorKind::OutOfMemory);
            io_error("map a region of", &self.path, source)
        })?;
        Ok((start, bytes))
    }

    /// The same inode through a new open file description, so that its locks are its own.
    fn open_anew(&self) -> Result<File, OpenError> {
        let by_descriptor = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let error = match self.open_checked(Path::new(&by_descriptor), 0) {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        // No /proc, or somebody closed our descriptor: by name, if it is still there.
        match self.open_checked(&self.path, libc::O_NOFOLLOW) {
            Ok(file) => Ok(file),
            Err(_) => Err(io_error("open again", &self.path, error)),
        }
    }

    fn open_checked(&self, path: &Path, flags: libc::c_int) -> io::Result<File> {
        let file = open_read_only(path, flags)?;
        let found = FileId::from(&file.metadata()?);
        if found == self.id {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

fn open_read_only(path: &Path, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | flags)
        .open(path)
}

/// F11, judged by what `fstat` said of the open descriptor.
fn trust(path: &Path, metadata: &Metadata) -> Result<(), OpenError> {
    let untrusted = |reason: String| OpenError::Untrusted {
        path: path.to_owned(),
        reason,
    };
    if !metadata.is_file() {
        return Err(untrusted("it is not a regular file".to_owned()));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(untrusted(format!(
            "its mode {mode:o} lets its group or others write it"
        )));
    }
    let owner = metadata.uid();
    let me = geteuid().as_raw();
    if owner == 0 || owner == me {
        return Ok(());
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    match std::fs::metadata(directory) {
        Ok(found) if found.uid() == owner => Ok(()),
        _ => Err(untrusted(format!(
            "its owner (uid {owner}) is neither root, nor you (uid {me}), nor the owner of its directory"
        ))),
    }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.raw_os_error() {
        // EAGAIN is mmap's word for locked memory (RLIMIT_MEMLOCK); locks never come here with it.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOLCK | libc::ENOMEM | libc::EAGAIN) => {
            OpenError::Resources { path, source }
        }
        _ => OpenError::Io {
            action,
            path,
            source,
        },
    }
}
