//! The keys of a checkpoint's metadata: where in the log it stands.

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaDataReader;

/// The last entry that a checkpoint holds (decimal). 0: none yet.
pub(crate) const POSITION_KEY: &str = "sherwood.log_position";
/// The generation that published that entry (decimal).
pub(crate) const GENERATION_KEY: &str = "sherwood.generation";
/// What wrote the file: a name and a version, for people.
pub(crate) const WRITER_KEY: &str = "sherwood.writer";

/// Where in the log a state stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The last entry in it (E3), 0 for none.
    pub sequence: u64,
    /// The generation that it was published as.
    pub generation: u64,
}

/// What the metadata of a Parquet file says. `None`: it is no checkpoint, or cannot be read.
#[must_use]
pub fn read_position(file: &Bytes) -> Option<Position> {
    let metadata =
        std::panic::catch_unwind(|| ParquetMetaDataReader::new().parse_and_finish(file).ok());
    let metadata = metadata.ok()??;
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let number = |key: &str| -> Option<u64> {
        let pair = pairs.iter().find(|pair| pair.key == key)?;
        pair.value.as_deref()?.parse().ok()
    };
    Some(Position {
        sequence: number(POSITION_KEY)?,
        generation: number(GENERATION_KEY)?,
    })
}

pub(crate) fn keys(position: Position) -> [(&'static str, String); 3] {
    [
        (POSITION_KEY, position.sequence.to_string()),
        (GENERATION_KEY, position.generation.to_string()),
        (
            WRITER_KEY,
            concat!("sherwood ", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
    ]
}
