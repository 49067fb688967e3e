//! The footer of a part of a table: what any Arrow reader needs to read it (F1).
//!
//! It ends with its own length and `ARROW1`, on a multiple of 64, so that the file
//! cut there is an Arrow IPC file whose record batches are the part's chunks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::DictionaryTracker;
use arrow_ipc::{Block, FooterBuilder, MetadataVersion, root_as_footer};
use arrow_schema::{ArrowError, Schema};
use flatbuffers::FlatBufferBuilder;

use crate::batch::BlockAt;
use crate::layout::ALIGN;

/// The bytes behind the footer's flatbuffer: its length and the magic.
pub const TRAILER_BYTES: usize = 10;
const MAGIC: &[u8; 6] = b"ARROW1";

/// Appends a footer to `out`, whose length is a multiple of 64 and stays one.
pub fn append(out: &mut Vec<u8>, schema: &Schema, blocks: &[BlockAt]) -> Result<(), ArrowError> {
    let too_large = |_| ArrowError::IpcError("a footer beyond the bounds of Arrow IPC".to_owned());
    let mut builder = FlatBufferBuilder::with_capacity(blocks.len() * 24 + 4096);
    let no_dictionaries: [Block; 0] = [];
    let dictionaries = builder.create_vector(&no_dictionaries);
    let blocks: Vec<Block> = blocks
        .iter()
        .map(|at| {
            let offset = i64::try_from(at.offset)?;
            Ok(Block::new(
                offset,
                i32::try_from(at.meta_bytes)?,
                i64::from(at.body_bytes),
            ))
        })
        .collect::<Result<_, std::num::TryFromIntError>>()
        .map_err(too_large)?;
    let batches = builder.create_vector(&blocks);
    let mut tracker = DictionaryTracker::new(false);
    let schema = IpcSchemaEncoder::new()
        .with_dictionary_tracker(&mut tracker)
        .schema_to_fb_offset(&mut builder, schema);
    let mut footer = FooterBuilder::new(&mut builder);
    footer.add_version(MetadataVersion::V5);
    footer.add_schema(schema);
    footer.add_dictionaries(dictionaries);
    footer.add_recordBatches(batches);
    let footer = footer.finish();
    builder.finish(footer, None);
    let bytes = builder.finished_data();

    // The flatbuffer begins on a multiple of 8 and its trailer ends on one of 64: pad
    // behind it up to 8 (its readers take the root from the front), before it up to 64.
    let padded = (bytes.len() + TRAILER_BYTES).next_multiple_of(8) - TRAILER_BYTES;
    let whole = padded + TRAILER_BYTES;
    let align = usize::try_from(ALIGN).unwrap_or(64);
    out.resize(out.len() + whole.next_multiple_of(align) - whole, 0);
    let start = out.len();
    out.extend_from_slice(bytes);
    out.resize(start + padded, 0);
    out.extend_from_slice(&i32::try_from(padded).map_err(too_large)?.to_le_bytes());
    out.extend_from_slice(MAGIC);
    Ok(())
}

/// What a footer says, read the way any Arrow implementation reads it.
#[derive(Debug)]
pub struct Footer {
    /// Of the table.
    pub schema: Schema,
    /// The chunks, in key order.
    pub blocks: Vec<BlockAt>,
}

/// Bytes of the footer that ends `bytes`, trailer included.
pub fn footer_bytes(trailer: &[u8; TRAILER_BYTES]) -> Result<usize, ArrowError> {
    let damaged = |what: String| ArrowError::IpcError(what);
    let (len, magic) = trailer.split_at(4);
    if magic != MAGIC {
        return Err(damaged(
            "no ARROW1 stands at the end of the footer".to_owned(),
        ));
    }
    let len: [u8; 4] = len
        .try_into()
        .map_err(|_| damaged("a short trailer".to_owned()))?;
    usize::try_from(i32::from_le_bytes(len))
        .map(|len| len + TRAILER_BYTES)
        .map_err(|_| damaged(format!("a footer of {} bytes", i32::from_le_bytes(len))))
}

/// Reads the footer that ends with the last byte of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Footer, ArrowError> {
    let damaged = |what: &str| ArrowError::IpcError(what.to_owned());
    let trailer = bytes
        .last_chunk()
        .ok_or_else(|| damaged("too short for a footer"))?;
    let len = footer_bytes(trailer)?;
    let start = bytes
        .len()
        .checked_sub(len)
        .ok_or_else(|| damaged("too short for its footer"))?;
    let flatbuffer = &bytes[start..bytes.len() - TRAILER_BYTES];
    let footer = root_as_footer(flatbuffer)
        .map_err(|error| ArrowError::IpcError(format!("damaged footer: {error}")))?;
    let schema = footer
        .schema()
        .ok_or_else(|| damaged("a footer without a schema"))?;
    let schema = schema_of(schema)?;
    let blocks = footer
        .recordBatches()
        .ok_or_else(|| damaged("a footer without batches"))?;
    let blocks = blocks
        .iter()
        .map(|block| {
            Some(BlockAt {
                offset: u64::try_from(block.offset()).ok()?,
                meta_bytes: u32::try_from(block.metaDataLength()).ok()?,
                body_bytes: u32::try_from(block.bodyLength()).ok()?,
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| damaged("a block with a negative or endless extent"))?;
    Ok(Footer { schema, blocks })
}

/// The conversion is Arrow's, and panics on types, bit widths and units that it does not know: what a flipped bit makes
/// of ours. It only reads, so nothing is left half-changed. (A program built with `panic = "abort"` dies instead.)
pub(crate) fn schema_of(schema: arrow_ipc::Schema<'_>) -> Result<Schema, ArrowError> {
    catch_unwind(AssertUnwindSafe(|| {
        arrow_ipc::convert::fb_to_schema(schema)
    }))
    .map_err(|_| ArrowError::IpcError("a schema of unknown types".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{TableId, table_schema};

    #[test]
    fn no_flipped_bit_of_a_footer_panics() {
        let block = BlockAt {
            offset: 4096,
            meta_bytes: 256,
            body_bytes: 512,
        };
        let mut good = Vec::new();
        append(&mut good, &table_schema(TableId::Tasks), &[block]).expect("encodes");
        let parsed = parse(&good).expect("parses");
        assert_eq!(parsed.blocks, [block]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _either = parse(&bad);
        }
    }
}
