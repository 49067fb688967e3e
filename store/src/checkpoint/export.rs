//! A checkpoint for somebody else: the same file, to any writer, without a place in a log.

use std::io::{self, Write};

use sherwood_client::Snapshot;
use sherwood_client::import::seal;

use super::encode::encode;
use super::error::CheckpointError;
use super::pace::Pace;
use super::sink::Paced;

/// Writes `snapshot` as a Parquet document, sealed: byte for byte what `sherwood_client::import::to_parquet_bytes` makes of the state, but
/// with one column of it in memory at a time (C5).
///
/// # Errors
///
/// [`CheckpointError::Encode`], with an [`io::Error`] inside if it is the writer's; [`CheckpointError::Read`],
/// [`CheckpointError::State`]. What was written until then is no state.
pub fn export<W: Write + Send>(
    snapshot: &Snapshot,
    out: W,
    pace: &mut dyn Pace,
) -> Result<(), CheckpointError> {
    let mut out = Sealing {
        out,
        sum: 0,
        held: None,
    };
    let hold = |out: &mut &mut Sealing<W>| out.held = Some(Vec::new());
    encode(snapshot, &[], &mut out, hold, &Paced::new(pace))?;
    let written = out.seal();
    written.map_err(|error| CheckpointError::Encode(error.into()))
}

/// Passes on and sums up; holds the footer back, where the sum has its place.
struct Sealing<W> {
    out: W,
    sum: u32,
    held: Option<Vec<u8>>,
}

impl<W: Write> Sealing<W> {
    fn seal(mut self) -> io::Result<()> {
        let mut end = self.held.unwrap_or_default();
        let sum = crc32c::crc32c_append(self.sum, &end);
        // Behind the footer: its length and the magic. Without a place the file is valid, only less protected.
        if let Some(at) = end.len().checked_sub(8)
            && let Some(place) = seal::place_in_footer(&end[..at])
            && let Some(digits) = end.get_mut(place..place + seal::UNSEALED.len())
        {
            digits.copy_from_slice(format!("{sum:08x}").as_bytes());
        }
        self.out.write_all(&end)?;
        self.out.flush()
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let count = self.out.write(bytes)?;
        self.sum = crc32c::crc32c_append(self.sum, bytes.get(..count).unwrap_or(bytes));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
