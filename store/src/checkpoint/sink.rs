//! A file that is written once, from its start: reserves room ahead, and sums up what it writes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use sherwood_client::import::seal;

use sherwood_shared::pause;

use super::pace::{Halt, Pace, Step};

/// Room is reserved in pieces of this, and written pages are handed to the disk as often: no sync at the end is long.
const AHEAD: u64 = 4 << 20;

/// A pace that several may ask, and that remembers having stopped.
pub(super) struct Paced<'a> {
    pace: Mutex<(&'a mut dyn Pace, bool)>,
}

impl<'a> Paced<'a> {
    pub(super) fn new(pace: &'a mut dyn Pace) -> Self {
        Self {
            pace: Mutex::new((pace, false)),
        }
    }

    pub(super) fn before(&self, step: Step) -> io::Result<()> {
        pause::at(step.name());
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match pace.0.before(step) {
            Ok(()) => Ok(()),
            Err(Halt::Stop) => {
                pace.1 = true;
                Err(io::Error::other("stopped"))
            }
            Err(Halt::Fail(error)) => Err(error),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// The file. Written in place of [`seal::UNSEALED`] is the checksum, by [`Sink::seal`].
pub(super) struct Sink<'a, 'asked> {
    file: &'a File,
    paced: &'a Paced<'asked>,
    written: u64,
    reserved: u64,
    handed_over: u64,
    sum: u32,
}

impl<'a, 'asked> Sink<'a, 'asked> {
    pub(super) fn new(file: &'a File, paced: &'a Paced<'asked>) -> Self {
        Self {
            file,
            paced,
            written: 0,
            reserved: 0,
            handed_over: 0,
            sum: 0,
        }
    }

    /// Makes room for the next bytes, so that a full disk is met before they are written.
    fn reserve(&mut self, bytes: usize) -> io::Result<()> {
        let end = self.written.saturating_add(bytes as u64);
        while self.reserved < end {
            self.paced.before(Step::Allocate)?;
            let offset = i64::try_from(self.reserved).map_err(io::Error::other)?;
            let length = i64::try_from(AHEAD).map_err(io::Error::other)?;
            match fallocate(
                self.file,
                FallocateFlags::FALLOC_FL_KEEP_SIZE,
                offset,
                length,
            ) {
                // A file system without it finds out when it writes.
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.reserved += AHEAD,
                // The last piece need not fit whole: what is written still may.
                Err(Errno::ENOSPC) if self.reserved + AHEAD > end => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Puts the checksum in and gives back the room that was not needed. `false`: the footer has no place for it.
    pub(super) fn seal(self) -> io::Result<bool> {
        let Self {
            file, written, sum, ..
        } = self;
        self.paced.before(Step::Seal)?;
        let mut end = [0; 4];
        let Some(at) = written.checked_sub(8) else {
            return Ok(false);
        };
        file.read_exact_at(&mut end, at)?;
        let length = u64::from(u32::from_le_bytes(end));
        let Some(start) = at.checked_sub(length) else {
            return Ok(false);
        };
        let mut footer = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut footer, start)?;
        let Some(place) = seal::place_in_footer(&footer) else {
            return Ok(false);
        };
        file.write_all_at(format!("{sum:08x}").as_bytes(), start + place as u64)?;
        file.set_len(written)?;
        Ok(true)
    }
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.len().min(1 << 20);
        let bytes = &bytes[..piece];
        self.reserve(piece)?;
        self.paced.before(Step::Write)?;
        let mut file = self.file;
        let count = file.write(bytes)?;
        self.sum = crc32c::crc32c_append(self.sum, &bytes[..count]);
        self.written += count as u64;
        if self.written - self.handed_over >= AHEAD {
            self.paced.before(Step::Sync)?;
            self.file.sync_data()?;
            self.handed_over = self.written;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
