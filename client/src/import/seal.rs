//! A checksum over a whole Parquet file, kept inside it.
//!
//! The format has checksums for pages, which not every writer writes (the `parquet` crate does not), and none for
//! the footer, where one flipped bit renames a column. So the file's metadata has a key `sherwood.crc32c` whose value is
//! eight hex digits: the CRC-32C of all bytes of the file, with those eight digits taken as zeros (`0`). It finds every
//! change of up to 32 bits in a row, and misses other damage once in 2^32.
//!
//! A tool that rewrites a Parquet file may copy keys it does not know (pyarrow does, where it takes them for the
//! schema's metadata). The seal therefore counts only in a file whose
//! `created_by` is Sherwood's, which no tool copies.

/// The key; its value is always eight digits long.
pub const KEY: &str = "sherwood.crc32c";
/// The value before it is known.
pub const UNSEALED: &str = "00000000";
/// How a sealed file's `created_by` begins.
pub const CREATED_BY: &str = "sherwood version ";

const DIGITS: usize = UNSEALED.len();
/// Between a key and its value in the footer's encoding (Thrift, compact): field 2 of a pair, a string, its length.
const BETWEEN: [u8; 2] = [0x18, 0x08];

/// Two checksums that should be one.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// As written.
    pub expected: u32,
    /// As computed.
    pub found: u32,
}

/// Computes the checksum of a file written with [`UNSEALED`] and puts it in. `false`: there is no place for it.
pub fn seal(file: &mut [u8]) -> bool {
    let Some(at) = place(file) else { return false };
    let sum = checksum(file, at);
    file[at..at + DIGITS].copy_from_slice(format!("{sum:08x}").as_bytes());
    true
}

/// Checks a file; one without a seal passes.
///
/// # Errors
///
/// [`Broken`].
pub fn check(file: &[u8]) -> Result<(), Broken> {
    let Some(at) = place(file) else { return Ok(()) };
    if !footer(file)
        .windows(CREATED_BY.len())
        .any(|bytes| bytes == CREATED_BY.as_bytes())
    {
        return Ok(());
    }
    let digits = std::str::from_utf8(&file[at..at + DIGITS]).unwrap_or_default();
    let found = checksum(file, at);
    match u32::from_str_radix(digits, 16) {
        Ok(expected) if expected == found => Ok(()),
        Ok(expected) => Err(Broken { expected, found }),
        Err(_) => Err(Broken { expected: 0, found }),
    }
}

fn checksum(file: &[u8], at: usize) -> u32 {
    let sum = crc32c::crc32c(&file[..at]);
    let sum = crc32c::crc32c_append(sum, UNSEALED.as_bytes());
    crc32c::crc32c_append(sum, &file[at + DIGITS..])
}

/// Where the digits stand. The last place that looks right: the file's metadata follows its schema, so a column
/// of that name cannot pass for the key.
fn place(file: &[u8]) -> Option<usize> {
    let footer = footer(file);
    let at = place_in_footer(footer)?;
    Some(file.len() - 8 - footer.len() + at)
}

/// Where the digits stand in a footer (without its length and the magic after it): for who writes a file piece by
/// piece. The checksum of the bytes as they were written, with [`UNSEALED`] in them, is the one to put there.
#[must_use]
pub fn place_in_footer(footer: &[u8]) -> Option<usize> {
    let pattern = [KEY.as_bytes(), &BETWEEN].concat();
    let found = footer
        .windows(pattern.len())
        .rposition(|bytes| bytes == pattern)?;
    let at = found + pattern.len();
    (at + DIGITS <= footer.len()).then_some(at)
}

/// The footer's bytes, without its length and the magic after it; nothing if the length cannot be right.
fn footer(file: &[u8]) -> &[u8] {
    let Some(end) = file.len().checked_sub(8) else {
        return &[];
    };
    let length = u32::from_le_bytes([file[end], file[end + 1], file[end + 2], file[end + 3]]);
    match end.checked_sub(length as usize) {
        Some(start) => &file[start..end],
        None => &[],
    }
}
