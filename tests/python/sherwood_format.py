"""Reads Sherwood's snapshot files. Written from docs/format.md alone: no code of Sherwood's is used.

`SnapshotFile(path)` is R1, `snapshot()` the turn of R2 in its simple form (one description for each
snapshot, the whole file mapped), or the copy where leases do not work. The Arrow part is pyarrow's.

A test of the page, and an example of what it takes; not a library. Python has no fences: on
x86-64 none is needed for loads, elsewhere the system calls between them are what orders them.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
from bisect import bisect_left, bisect_right
from typing import NamedTuple

import pyarrow as pa

WITNESS = 1 << 62
TABLES = ("nodes", "tasks", "content")
KEYS = {"nodes": "id", "tasks": "id", "content": "cid"}


class FormatError(Exception):
    """The file is not what the page says."""


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli): reflected, initial value and final xor all ones."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


# Section 2: the header.


class Constants(NamedTuple):
    data_start: int
    region_bytes: int
    file_id: bytes
    history: bytes
    created_at_ms: int
    writer_pid: int
    cluster_id: str

    @classmethod
    def parse(cls, page: bytes) -> Constants:
        if page[0:8] != b"ARROW1\0\0" or page[8:16] != b"SHERWOOD":
            raise FormatError("not a Sherwood snapshot")
        version, = struct.unpack_from("<I", page, 16)
        if version != 1:
            raise FormatError(f"format version {version}")
        checksum, = struct.unpack_from("<I", page, 256)
        if checksum != crc32c(page[:256]):
            raise FormatError("damaged header")
        start, size, file_id, history, created, pid, length = struct.unpack_from("<QQ16s16sQII", page, 24)
        if not (4096 <= size <= 1 << 36 and size & size - 1 == 0):
            raise FormatError(f"regions of {size} bytes")
        if not (4096 <= start <= 1 << 36 and start % 4096 == 0):
            raise FormatError(f"region 0 at {start}")
        if length > 128:
            raise FormatError(f"a cluster id of {length} bytes")
        return cls(start, size, file_id, history, created, pid, page[88 : 88 + length].decode())

    def region_of(self, offset: int) -> int:
        if offset < self.data_start:
            raise FormatError(f"byte {offset} is before region 0")
        return (offset - self.data_start) // self.region_bytes

    def start(self, region: int) -> int:
        return self.data_start + region * self.region_bytes


class Head(NamedTuple):
    superseded: bool
    root_end: int
    generation_low: int

    @classmethod
    def of(cls, word: int) -> Head:
        return cls(bool(word >> 63), (word >> 32 & 0x7FFFFFFF) * 64, word & 0xFFFFFFFF)


# Section 4: the root record.


class Part(NamedTuple):
    footer_end: int
    index_at: int
    rows: int
    chunks: int
    first_key: str


class Table(NamedTuple):
    rows: int
    schema_fingerprint: int
    parts: list[Part]


class Root(NamedTuple):
    schema_version: int
    generation: int
    published_at_ms: int
    state_device: int
    state_inode: int
    live_bytes: int
    arrow_at: int
    regions: list[int]
    tables: dict[str, Table]

    @classmethod
    def parse(cls, data: memoryview) -> Root:
        try:
            return cls._parse(data)
        except struct.error as error:
            raise FormatError("the root record is cut") from error

    @classmethod
    def _parse(cls, data: memoryview) -> Root:
        magic, length, checksum, *facts, regions, tables = struct.unpack_from("<4sIIIQQQQQQII", data, 0)
        if magic != b"SWRT":
            raise FormatError("no root record")
        record = bytearray(data[:length])
        record[8:12] = bytes(4)
        if len(record) != length or checksum != crc32c(record):
            raise FormatError("damaged root record")
        if tables != len(TABLES):
            raise FormatError(f"{tables} tables")
        at = 80
        heads = [struct.unpack_from("<QQI12x", record, at + 32 * table) for table in range(tables)]
        at += 32 * tables
        count = sum(parts for _, _, parts in heads)
        parts = [struct.unpack_from("<QQQII16x", record, at + 48 * part) for part in range(count)]
        at += 48 * count
        numbers = list(struct.unpack_from(f"<{regions}I", record, at))
        at += 4 * regions
        made = []
        for *place, key_bytes in parts:
            made.append(Part(*place, record[at : at + key_bytes].decode()))
            at += key_bytes
        by_name, taken = {}, iter(made)
        for name, (rows, fingerprint, parts_of_it) in zip(TABLES, heads):
            by_name[name] = Table(rows, fingerprint, [next(taken) for _ in range(parts_of_it)])
        return cls(*facts, numbers, by_name)


# Section 5: the part index.


class Index(NamedTuple):
    prefix: bytes
    fences: list[int]
    blocks: list[tuple[int, int, int]]
    rows_until: list[int]

    @classmethod
    def parse(cls, data: memoryview, part: Part) -> Index:
        magic, count, prefix_bytes = struct.unpack_from("<4sII", data, part.index_at)
        if magic != b"SWIX" or count != part.chunks:
            raise FormatError("no index of this part")
        at = part.index_at + 32
        fences = list(struct.unpack_from(f"<{count}Q", data, at))
        blocks = list(struct.iter_unpack("<QII", data[at + 8 * count : at + 24 * count]))
        rows_until = list(struct.unpack_from(f"<{count}Q", data, at + 24 * count))
        return cls(part.first_key.encode()[:prefix_bytes], fences, blocks, rows_until)

    def candidates(self, key: bytes) -> range:
        """The chunks that may hold `key`."""
        begin, rest = key[: len(self.prefix)], key[len(self.prefix) :]
        if begin > self.prefix:
            return range(max(len(self.fences) - 1, 0), len(self.fences))
        if begin < self.prefix:
            return range(0)
        fence = int.from_bytes(rest[:8].ljust(8, b"\0"), "big")
        end = bisect_right(self.fences, fence)
        return range(max(bisect_left(self.fences, fence) - 1, 0), end)


# Section 6: reading safely.


def _set_lock(fd: int, kind: int, start: int, length: int) -> bool:
    """F_OFD_SETLK. False: somebody else has it."""
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
        return True
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise


class Snapshot:
    """One generation, in leased or copied memory, for as long as this or a table made of it lives."""

    def __init__(self, constants: Constants, root: Root, root_end: int, memory: mmap.mmap):
        self.constants, self.root, self.root_end, self._memory = constants, root, root_end, memory
        self.source = pa.py_buffer(memory)

    def _footer(self, end: int) -> pa.ipc.RecordBatchFileReader:
        for place in (end - 1, end - 10):
            if self.constants.region_of(place) not in self.root.regions:
                raise FormatError(f"a footer at {end}, outside the snapshot's regions")
        return pa.ipc.open_file(pa.BufferReader(self.source), footer_offset=end)

    def arrow_root(self) -> pa.Table:
        return self._footer(self.root_end).read_all()

    def table(self, name: str) -> pa.Table:
        return pa.concat_tables([self.part(part) for part in self.root.tables[name].parts])

    def part(self, part: Part) -> pa.Table:
        return self._footer(part.footer_end).read_all()

    def index(self, part: Part) -> Index:
        return Index.parse(memoryview(self._memory), part)

    def find(self, name: str, key: str) -> dict | None:
        """A row by its key, by way of the index. The bytes of keys decide, not their text."""
        wanted = key.encode()
        parts = self.root.tables[name].parts
        at = bisect_right([part.first_key.encode() for part in parts], wanted) - 1
        if at < 0 or parts[at].chunks == 0:
            return None
        reader = self._footer(parts[at].footer_end)
        for chunk in reversed(self.index(parts[at]).candidates(wanted)):
            batch = reader.get_batch(chunk)
            keys = [value.as_py().encode() for value in batch[KEYS[name]]]
            if keys[0] <= wanted:
                row = bisect_left(keys, wanted)
                if row < len(keys) and keys[row] == wanted:
                    return batch.slice(row, 1).to_pylist()[0]
                return None
        return None


class SnapshotFile:
    """A snapshot file that was judged trustworthy (R1)."""

    def __init__(self, path: str):
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        found = os.fstat(self._fd)
        owners = {0, os.geteuid(), os.stat(os.path.dirname(os.path.abspath(path))).st_uid}
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022 or found.st_uid not in owners:
            raise FormatError("not to be trusted")
        if found.st_size < 4096:
            raise FormatError("truncated")
        self.identity = found.st_dev, found.st_ino
        self.constants = Constants.parse(os.pread(self._fd, 260, 0))
        self._words = memoryview(mmap.mmap(self._fd, 4096, prot=mmap.PROT_READ)).cast("Q")
        # Any other answer than "somebody has it exclusively" means that nobody writes.
        self.alive = not _set_lock(self._fd, fcntl.F_RDLCK, WITNESS, 1)
        if not self.alive:
            _set_lock(self._fd, fcntl.F_UNLCK, WITNESS, 1)

    def head(self) -> Head:
        return Head.of(self._words[512 // 8])

    def intact_from(self) -> int:
        return self._words[640 // 8]

    def beat(self) -> int:
        return self._words[768 // 8]

    def is_at_its_path(self) -> bool:
        found = os.lstat(self.path)
        return (found.st_dev, found.st_ino) == self.identity

    def snapshot(self) -> Snapshot:
        return self._leased() if self.alive else self._copied()

    def _leased(self) -> Snapshot:
        """The turn of R2, in the simple form."""
        anew = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            leased: set[int] = set()
            mapped = 0
            while True:
                head = self.head()
                if head.root_end == 0:
                    raise FormatError("nothing is published yet")
                first = self.constants.region_of(head.root_end - 1)
                if first not in leased:
                    self._lease(anew, [first], leased)
                    continue
                if mapped < self.constants.start(first + 1):
                    mapped = os.fstat(anew).st_size
                    if mapped < self.constants.start(first + 1):
                        raise FormatError("the root's region lies behind the end of the file")
                    memory = mmap.mmap(anew, mapped, prot=mmap.PROT_READ)
                record = memoryview(memory)[head.root_end : self.constants.start(first + 1)]
                root = Root.parse(record)
                record.release()
                missing = [region for region in root.regions if region not in leased]
                if missing:
                    self._lease(anew, missing, leased)
                    continue
                if mapped < self.constants.start(root.regions[-1] + 1):
                    mapped = 0  # it grew: map it again
                    continue
                return Snapshot(self.constants, root, head.root_end, memory)
        finally:
            os.close(anew)  # the mapping keeps its own duplicate, and that the locks

    def _lease(self, anew: int, regions: list[int], leased: set[int]) -> None:
        for region in regions:
            if _set_lock(anew, fcntl.F_RDLCK, self.constants.start(region), self.constants.region_bytes):
                leased.add(region)

    def _copied(self) -> Snapshot:
        """Without leases: copy, then see that nothing of it was given up meanwhile."""
        while True:
            head = self.head()
            if head.root_end == 0:
                raise FormatError("nothing is published yet")
            first = self.constants.region_of(head.root_end - 1)
            memory = mmap.mmap(-1, os.fstat(self._fd).st_size)
            self._copy(first, memory)
            try:
                root = Root.parse(memoryview(memory)[head.root_end : self.constants.start(first + 1)])
            except FormatError:
                if self.head() == head:
                    raise
                continue
            for region in root.regions:
                if region != first:
                    self._copy(region, memory)
            intact = root.generation >= self.intact_from()
            if intact and root.generation & 0xFFFFFFFF == head.generation_low:
                return Snapshot(self.constants, root, head.root_end, memory)

    def _copy(self, region: int, memory: mmap.mmap) -> None:
        start, end = self.constants.start(region), self.constants.start(region + 1)
        while start < end:
            start += os.preadv(self._fd, [memoryview(memory)[start:end]], start)
