//! "Write a new file, rename, re-map": what a program does that has no library
//! for this, and what a Parquet or Arrow file on a tmpfs amounts to.
//!
//! Publishing copies the whole state to a new file and renames it in. A reader
//! asks with `stat` whether the inode changed, and if so opens and maps the
//! file and reads one chunk of 128 KiB of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memmap2::Mmap;

use crate::measure::{batched, in_turn};
use crate::row::{Outcome, Row};
use crate::{Failure, Setting};

/// The column "who".
pub const WHO: (&str, &str) = ("new file, rename, re-map", "-");

/// For what is timed.
const BUDGET: Duration = Duration::from_millis(1_500);
/// Bytes a reader looks at after each change.
const CHUNK: usize = 128 << 10;

/// A reader: the file's identity and its mapping.
struct Reader {
    path: PathBuf,
    inode: u64,
    map: Option<Mmap>,
}

impl Reader {
    fn open(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            inode: 0,
            map: None,
        }
    }

    /// Is the file another one than the one mapped?
    fn changed(&self) -> io::Result<bool> {
        Ok(fs::metadata(&self.path)?.ino() != self.inode)
    }

    /// Maps the file as it is now, if it changed, and lets the old one go.
    fn refresh(&mut self) -> io::Result<()> {
        if self.changed()? {
            let file = File::open(&self.path)?;
            self.inode = file.metadata()?.ino();
            // SAFETY: the writer never writes to a file it has renamed in, nor shrinks it.
            self.map = Some(unsafe { Mmap::map(&file)? });
        }
        Ok(())
    }

    /// Reads one chunk in the middle of the state.
    fn touch(&self) -> u64 {
        let bytes = self.map.as_deref().unwrap_or_default();
        let from = bytes.len() / 2;
        bytes[from..bytes.len().min(from + CHUNK)]
            .iter()
            .step_by(64)
            .map(|&byte| u64::from(byte))
            .sum()
    }
}

/// Both sizes, and with `--large` one more.
pub fn run(setting: &Setting<'_>, print: &mut dyn FnMut(Row)) -> Result<(), Failure> {
    let sizes: &[(&str, usize)] = &[
        ("1 MB", 1_000_000),
        ("100 MB", 100_000_000),
        ("1 GB", 1_000_000_000),
    ];
    for &(size, bytes) in if setting.large { sizes } else { &sizes[..2] } {
        let (path, aside) = (setting.dir.join("state"), setting.dir.join("state.new"));
        let mut state = vec![1_u8; bytes];
        let mut publish = || -> io::Result<()> {
            state[bytes / 2] = state[bytes / 2].wrapping_add(1);
            File::create(&aside)?.write_all(&state)?;
            fs::rename(&aside, &path)
        };
        publish()?;
        let mut reader = Reader::open(&path);
        reader.refresh()?;
        if bytes == sizes[0].1 {
            let figure = batched(BUDGET / 2, || reader.changed().is_ok());
            print(
                Row::new("acquire", "stat, unchanged", WHO, Outcome::Time(figure))
                    .over("load", 1.0)
                    .detail("one syscall"),
            );
        }
        let (writes, reads) = in_turn(BUDGET, 5_000, publish, || {
            reader.refresh()?;
            std::hint::black_box(reader.touch());
            Ok(())
        })?;
        let mib = bytes as f64 / f64::from(1 << 20);
        print(
            Row::new(
                "refresh",
                format!("stat, open, map, touch one chunk, {size}"),
                WHO,
                Outcome::Time(reads),
            )
            .over("hop", 1.0)
            .detail("128 KiB read; unmapping the old file frees it, which a reader pays"),
        );
        let row = |question, name, detail| {
            Row::new(question, name, WHO, Outcome::Time(writes.clone()))
                .over("memcpy 1 MiB", mib)
                .detail(detail)
        };
        print(row(
            "publish",
            format!("write all for one row, {size}"),
            "it knows no parts",
        ));
        print(row(
            "publish-all",
            format!("write, rename, {size}"),
            "fresh pages each time",
        ));
    }
    Ok(())
}
