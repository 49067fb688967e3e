//! Disks that fail on purpose, for tests of this crate and of those that use it.
//!
//! [`FaultyDisk`] does everything on the real file system, until one operation, counted, fails. [`PowerCut`] does too, and
//! remembers what a disk would have lost: after [`PowerCut::crash`] a directory holds what was synced, and of the rest
//! what a coin says, sector by sector and name by name.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, RealDisk};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `EIO`, without doing anything.
    Io,
    /// `ENOSPC`, without doing anything.
    Full,
    /// A write does half of it, and the rest of this write fails with `EIO`. Other operations: `EIO`.
    Short,
}

/// What was done, and what is to fail.
#[derive(Debug, Default)]
pub struct Plan {
    done: Mutex<(u64, Option<(u64, Fault)>)>,
}

impl Plan {
    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.done).0
    }

    /// Lets the operation of this number, counted from 0, fail.
    pub fn fail(&self, number: u64, fault: Fault) {
        lock(&self.done).1 = Some((number, fault));
    }

    fn next(&self) -> Option<Fault> {
        let mut done = lock(&self.done);
        let number = done.0;
        done.0 += 1;
        done.1
            .filter(|(at, _)| *at == number)
            .map(|(_, fault)| fault)
    }

    fn check(&self) -> io::Result<()> {
        match self.next() {
            None => Ok(()),
            Some(Fault::Full) => Err(nix::errno::Errno::ENOSPC.into()),
            Some(Fault::Io | Fault::Short) => Err(nix::errno::Errno::EIO.into()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The real file system, but for one operation.
#[derive(Clone, Debug, Default)]
pub struct FaultyDisk {
    /// Which one.
    pub plan: Arc<Plan>,
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn DiskFile>,
    plan: Arc<Plan>,
}

impl FaultyDisk {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let plan = Arc::clone(&self.plan);
        Box::new(FaultyFile { file, plan })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.plan.check()?;
        RealDisk.create(path).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.plan.check()?;
        RealDisk.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.check()?;
        RealDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.plan.check()?;
        RealDisk.unlink(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.plan.check()?;
        RealDisk.sync_dir(path)
    }
}

impl DiskFile for FaultyFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.plan.next() {
            None => self.file.pwrite(bytes, offset),
            Some(Fault::Full) => Err(nix::errno::Errno::ENOSPC.into()),
            Some(Fault::Io) => Err(nix::errno::Errno::EIO.into()),
            Some(Fault::Short) => {
                // The next write, which is the rest of this one, fails.
                let next = self.plan.operations();
                self.plan.fail(next, Fault::Io);
                let half = bytes.get(..bytes.len() / 2).unwrap_or(&[]);
                self.file.pwrite(half, offset)
            }
        }
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.plan.check()?;
        self.file.fdatasync()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.plan.check()?;
        self.file.allocate(len)
    }
}

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A file's content on the disk, and the sectors that only the page cache has.
#[derive(Debug, Default)]
struct Node {
    durable: Vec<u8>,
    /// Each version a sector had since the last sync: any of them, or the durable one, may be there after a crash.
    pending: Vec<(u64, Vec<u8>)>,
    cache: Vec<u8>,
}

/// What has which name from then on.
type Change = Vec<(OsString, Option<Arc<Mutex<Node>>>)>;

#[derive(Debug, Default)]
struct Names {
    durable: HashMap<OsString, Arc<Mutex<Node>>>,
    cache: HashMap<OsString, Arc<Mutex<Node>>>,
    /// Changes since the last sync of the directory, in order: what has the name then.
    pending: Vec<Change>,
    operations: u64,
    cut_at: Option<u64>,
}

/// One directory on a disk whose power can be cut. Files that it did not make do not count.
#[derive(Clone, Debug, Default)]
pub struct PowerCut {
    names: Arc<Mutex<Names>>,
}

#[derive(Debug)]
struct CutFile {
    real: Box<dyn DiskFile>,
    node: Arc<Mutex<Node>>,
    names: Arc<Mutex<Names>>,
}

impl PowerCut {
    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.names).operations
    }

    /// Fails the operation of this number and all after it, as if the machine were gone.
    pub fn cut_at(&self, number: u64) {
        lock(&self.names).cut_at = Some(number);
    }

    /// Sectors and names that a crash now would leave to chance: the bits that [`crash`](Self::crash) asks for.
    #[must_use]
    pub fn chances(&self) -> usize {
        let names = lock(&self.names);
        let sectors = names.cache.values().map(|node| lock(node).pending.len());
        sectors.sum::<usize>() + names.pending.len()
    }

    /// Writes into `to`, an empty directory, what a crash now leaves: `keep` says of each chance whether it came to the disk.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn crash(&self, to: &Path, mut keep: impl FnMut() -> bool) -> io::Result<()> {
        let names = lock(&self.names);
        let mut left = names.durable.clone();
        for change in &names.pending {
            // Names come to the disk in their order, or not at all: what journals promise.
            if !keep() {
                break;
            }
            apply(&mut left, change);
        }
        let mut named: Vec<_> = left.into_iter().collect();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, node) in named {
            let node = lock(&node);
            let mut bytes = node.durable.clone();
            for (sector, version) in &node.pending {
                if keep() {
                    let from = usize::try_from(*sector).unwrap_or(0) * SECTOR;
                    let end = from + version.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    if let Some(place) = bytes.get_mut(from..end) {
                        place.copy_from_slice(version);
                    }
                }
            }
            fs::write(to.join(name), bytes)?;
        }
        Ok(())
    }

    fn change(&self, change: Change) {
        let mut names = lock(&self.names);
        apply(&mut names.cache, &change);
        names.pending.push(change);
    }
}

fn apply(
    names: &mut HashMap<OsString, Arc<Mutex<Node>>>,
    change: &[(OsString, Option<Arc<Mutex<Node>>>)],
) {
    for (name, node) in change {
        match node {
            Some(node) => drop(names.insert(name.clone(), Arc::clone(node))),
            None => drop(names.remove(name)),
        }
    }
}

fn count(names: &Mutex<Names>) -> io::Result<()> {
    let mut names = lock(names);
    let number = names.operations;
    names.operations += 1;
    match names.cut_at {
        Some(cut) if number >= cut => Err(nix::errno::Errno::EIO.into()),
        _ => Ok(()),
    }
}

fn name_of(path: &Path) -> OsString {
    path.file_name().map(OsString::from).unwrap_or_default()
}

impl Disk for PowerCut {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        count(&self.names)?;
        let real = RealDisk.create(path)?;
        let node = Arc::<Mutex<Node>>::default();
        self.change(vec![(name_of(path), Some(Arc::clone(&node)))]);
        let names = Arc::clone(&self.names);
        Ok(Box::new(CutFile { real, node, names }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        count(&self.names)?;
        let real = RealDisk.open(path)?;
        let node = lock(&self.names).cache.get(&name_of(path)).cloned();
        let node = node.ok_or_else(|| io::Error::other("a file of another disk"))?;
        let names = Arc::clone(&self.names);
        Ok(Box::new(CutFile { real, node, names }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        count(&self.names)?;
        RealDisk.rename(from, to)?;
        let node = lock(&self.names).cache.get(&name_of(from)).cloned();
        self.change(vec![(name_of(from), None), (name_of(to), node)]);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        count(&self.names)?;
        RealDisk.unlink(path)?;
        self.change(vec![(name_of(path), None)]);
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        count(&self.names)?;
        let mut names = lock(&self.names);
        names.durable = names.cache.clone();
        names.pending.clear();
        Ok(())
    }
}

impl DiskFile for CutFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        count(&self.names)?;
        let written = self.real.pwrite(bytes, offset)?;
        let mut node = lock(&self.node);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from + written;
        if node.cache.len() < end {
            node.cache.resize(end, 0);
        }
        if let (Some(place), Some(bytes)) = (node.cache.get_mut(from..end), bytes.get(..written)) {
            place.copy_from_slice(bytes);
        }
        for sector in from / SECTOR..end.div_ceil(SECTOR) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(node.cache.len());
            let version = node.cache.get(range).unwrap_or(&[]).to_vec();
            node.pending.push((sector as u64, version));
        }
        Ok(written)
    }

    fn fdatasync(&self) -> io::Result<()> {
        count(&self.names)?;
        let mut node = lock(&self.node);
        node.durable = node.cache.clone();
        node.pending.clear();
        Ok(())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        // Reserved space reads as zeros, as what was never written does.
        count(&self.names)
    }
}

/// The directory of a crash, to be opened again on a new disk that knows its files.
///
/// # Errors
///
/// The kernel's.
pub fn after_crash(dir: &Path) -> io::Result<PowerCut> {
    let disk = PowerCut::default();
    let mut names = lock(&disk.names);
    for item in fs::read_dir(dir)? {
        let path: PathBuf = item?.path();
        let bytes = fs::read(&path)?;
        let node = Arc::new(Mutex::new(Node {
            durable: bytes.clone(),
            pending: Vec::new(),
            cache: bytes,
        }));
        names.durable.insert(name_of(&path), Arc::clone(&node));
        names.cache.insert(name_of(&path), node);
    }
    drop(names);
    Ok(disk)
}

/// The real file system without its syncs: for measuring the rest. Nothing is durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSync;

#[derive(Debug)]
struct NoSyncFile(Box<dyn DiskFile>);

impl Disk for NoSync {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(NoSyncFile(RealDisk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(NoSyncFile(RealDisk.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        RealDisk.unlink(path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for NoSyncFile {
    fn pwrite(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.pwrite(bytes, offset)
    }

    fn fdatasync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}
