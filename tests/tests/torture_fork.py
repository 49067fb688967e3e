"""Leases a snapshot by docs/format.md alone, forks, and checks it in the child.

    python3 torture_fork.py SNAPSHOT

Says `holds GENERATION` and forks. The parent unmaps everything and exits. The child
compares every byte of the snapshot with a copy made before the fork, until standard
input is closed, and says `unchanged CHECKS`, or `wrong ...`. Needs nothing but Python.
"""

import fcntl
import mmap
import os
import select
import struct
import sys

HEAD_AT = 512
SUPERSEDED = 1 << 63
RECORD_HEAD, TABLE, PART = 80, 32, 48


class Snapshot:
    """The regions of the newest generation, leased and mapped (R2, R3)."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.header = mmap.mmap(self.fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
        self.data_start, self.region_bytes = struct.unpack_from("<QQ", self.header, 24)
        self.maps = {}
        while not self.turn():
            pass

    def turn(self):
        """One turn of R2: true if every lease was taken before the head was loaded."""
        (head,) = struct.unpack_from("<Q", self.header, HEAD_AT)
        self.end = ((head & ~SUPERSEDED) >> 32) * 64
        missing = self.lease([self.region_of(self.end - 1)])
        if missing:
            return False
        return not self.lease(self.read_root())

    def lease(self, regions):
        """Leases those that are not. True: there were some."""
        missing = [region for region in regions if region not in self.maps]
        for region in missing:
            start = self.data_start + region * self.region_bytes
            # The same inode anew, so that the lock is the mapping's own. Python's mmap
            # keeps a duplicate of the descriptor: the same description, the same lock.
            fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, start, self.region_bytes, 0)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
                self.maps[region] = mmap.mmap(
                    fd, self.region_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=start
                )
            except BlockingIOError:
                pass  # the writer probes it at this moment: look again
            finally:
                os.close(fd)
        return bool(missing)

    def region_of(self, at):
        return (at - self.data_start) // self.region_bytes

    def bytes(self, start, end):
        region = self.region_of(start)
        base = self.data_start + region * self.region_bytes
        return self.maps[region][start - base : end - base]

    def read_root(self):
        """Reads the root record. Returns the regions that it names."""
        length = struct.unpack("<4xI", self.bytes(self.end, self.end + 8))[0]
        record = self.bytes(self.end, self.end + length)
        self.generation, arrow_at = struct.unpack_from("<16xQ32xQ", record)
        regions, tables = struct.unpack_from("<II", record, 64 + 0)
        at = RECORD_HEAD
        parts = 0
        for table in range(tables):
            parts += struct.unpack_from("<16xI", record, at)[0]
            at += TABLE
        self.parts = []
        for part in range(parts):
            footer_end, index_at, rows, chunks = struct.unpack_from("<QQQI", record, at)
            self.parts.append((index_at, footer_end, chunks))
            at += PART
        self.root = (arrow_at, self.end + length)
        return struct.unpack_from(f"<{regions}I", record, at)

    def ranges(self):
        """Everything that the generation consists of: root, indexes, footers, chunks."""
        yield self.root
        for index_at, footer_end, chunks in self.parts:
            yield index_at, footer_end
            index = self.bytes(index_at, footer_end)
            for chunk in range(chunks):
                offset, sizes = struct.unpack_from("<QQ", index, 32 + 8 * chunks + 16 * chunk)
                yield offset, offset + (sizes & 0xFFFFFFFF) + (sizes >> 32)

    def close(self):
        for region in self.maps.values():
            region.close()
        self.header.close()
        os.close(self.fd)


def main():
    snapshot = Snapshot(sys.argv[1])
    ranges = sorted(set(snapshot.ranges()))
    before = [snapshot.bytes(*each) for each in ranges]
    print("holds", snapshot.generation, flush=True)
    if os.fork():
        snapshot.close()
        return
    checks = 0
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        for each, old in zip(ranges, before):
            if snapshot.bytes(*each) != old:
                print("wrong: changed in the child:", each, "of", snapshot.generation, flush=True)
                sys.exit(1)
        checks += 1
    print("unchanged", checks, flush=True)


main()
