//! `sherwood snapshot`: each table as a plain Arrow IPC file.

use std::fs::{self, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, SchemaRef};
use sherwood_client::{ReadError, Snapshot, TableId};

use crate::encode;
use crate::error::CliError;
use crate::find::find;
use crate::freshness;
use crate::output;
use sherwood_client::find::{Origin, Places};

/// Runs it.
pub fn run(places: &Places, out_dir: &Path) -> Result<(), CliError> {
    let found = find(places)?;
    let daemon = found.daemon()?;
    if let Some(warning) = freshness::warning(&found, daemon) {
        output::say("warning", &warning);
    }
    fs::create_dir_all(out_dir).map_err(|source| CliError::Write {
        path: out_dir.to_owned(),
        source,
    })?;
    let snapshot = &found.snapshot;
    let write = |name: &str, schema: &SchemaRef, batches: &mut Batches<'_>| {
        let schema = encode::described(schema, &found)?;
        write_file(&out_dir.join(name), &schema, batches)
    };
    for id in TableId::ALL {
        let table = snapshot.table(id);
        let name = format!("{}.arrow", id.name());
        write(&name, &table.schema()?, &mut table.batches())?;
    }
    // Last, so that where it is new the others are.
    let cluster = snapshot.cluster()?;
    let schema = cluster.schema();
    write("cluster.arrow", &schema, &mut std::iter::once(Ok(cluster)))?;
    output::say(
        "written",
        &format!("{} ({})", out_dir.display(), of(snapshot, &found.origin)),
    );
    Ok(())
}

type Batches<'a> = dyn Iterator<Item = Result<RecordBatch, ReadError>> + 'a;

fn of(snapshot: &Snapshot, origin: &Origin) -> String {
    match origin {
        Origin::Shared { .. } => format!("generation {}", snapshot.generation()),
        Origin::Parquet { path, .. } => format!("from {}", path.display()),
    }
}

/// Written aside, synced, renamed: at `path` stands the old file or the new one.
fn write_file(path: &Path, schema: &SchemaRef, batches: &mut Batches<'_>) -> Result<(), CliError> {
    let failed = |source| CliError::Write {
        path: path.to_owned(),
        source,
    };
    let not_encoded = |source| match source {
        ArrowError::IoError(_, source) => failed(source),
        source => CliError::Encode {
            path: path.to_owned(),
            source,
        },
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".sherwood-")
        .permissions(Permissions::from_mode(0o666)) // less the umask
        .tempfile_in(directory)
        .map_err(failed)?;
    let buffered = BufWriter::with_capacity(1 << 20, file);
    let mut writer = FileWriter::try_new(buffered, schema).map_err(not_encoded)?;
    for batch in batches {
        writer.write(&batch?).map_err(not_encoded)?;
    }
    let mut buffered = writer.into_inner().map_err(not_encoded)?;
    buffered.flush().map_err(failed)?;
    let file = buffered
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
