"""Everybody's Arrow and Parquet read what Sherwood writes, and Sherwood reads what they write.

Snapshots are found by `sherwood_format`, which knows docs/format.md alone; the tables are read by pyarrow, Polars and
DuckDB. What is right is what pyarrow reads in the Parquet file of the same state.

`cargo test -p sherwood-tests --test other_readers` runs this, and gives it the helper program in SHERWOOD_MAKE_SNAPSHOT.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
import io
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import states
from sherwood_format import FormatError, SnapshotFile, crc32c
from states import DOCUMENT, KEYS, TABLES

HELPER = os.environ.get("SHERWOOD_MAKE_SNAPSHOT", "")
REGION, CHUNK = 64 << 10, 4 << 10


@pytest.fixture(scope="session", autouse=True)
def helper():
    assert HELPER, "SHERWOOD_MAKE_SNAPSHOT names the helper: run `cargo test -p sherwood-tests --test other_readers`"


class Publisher:
    """The helper, publishing: a real publisher in a process of its own."""

    def __init__(self, state: Path, run_dir: Path, seed: int, region: int, chunk: int):
        self.out = state.with_name("after.parquet")
        command = [HELPER, "publish", state, run_dir, self.out, seed, region, chunk]
        self._process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        assert line, "the publisher ended"
        said = json.loads(line)
        self.path, self.generation = said["path"], said["generation"]

    def change(self, times: int):
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        self._answer()

    def rows(self):
        """What the state is now, by its Parquet file."""
        return states.read_rows(self.out)

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@contextlib.contextmanager
def publishing(tmp_path: Path, seed: int, nodes=40, tasks=1500, content=600, region=REGION, chunk=CHUNK, state=None):
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shm) as run_dir:
        state = state or states.document(seed, nodes, tasks, content)
        path = states.write(state, tmp_path / "state_sample.parquet") if isinstance(state, dict) else state
        publisher = Publisher(path, Path(run_dir), seed, region, chunk)
        try:
            yield publisher
        finally:
            publisher.close()


def by_key(table: str, rows) -> dict[str, dict]:
    """Rows of a flat table, which must be sorted by the bytes of their keys, in a form that compares."""
    rows = [states.plain(row) for row in rows]
    keys = [row[KEYS[table]] for row in rows]
    assert keys == sorted(set(keys), key=str.encode), f"{table}: keys out of order, or twice"
    return dict(zip(keys, rows))


def through_pyarrow(snapshot, name):
    return snapshot.table(name).to_pylist()


def through_polars(snapshot, name):
    return pl.from_arrow(snapshot.table(name)).to_dicts()


def through_polars_own_reader(snapshot, name):
    """Polars' reader, not pyarrow's: given the file cut at the end of each footer (F1)."""
    frames = []
    for part in snapshot.root.tables[name].parts:
        cut = snapshot.source.slice(0, part.footer_end)
        frames.append(pl.read_ipc(io.BytesIO(cut), use_pyarrow=False))
    return pl.concat(frames).to_dicts()


def through_duckdb(snapshot, name):
    rows = snapshot.table(name)
    order = KEYS[name]
    with duckdb.connect() as connection:
        connection.register("rows_of_it", rows)
        counted = connection.sql(f"SELECT count(*), count(DISTINCT {order}) FROM rows_of_it").fetchall()[0]
        assert counted == (rows.num_rows, rows.num_rows)
        return connection.sql("SELECT * FROM rows_of_it").to_arrow_table().to_pylist()


READERS = [through_pyarrow, through_polars, through_polars_own_reader, through_duckdb]


@pytest.mark.parametrize("read", READERS)
def test_every_tool_reads_every_table_of_many_generations_equal_to_the_parquet_state(tmp_path, read):
    with publishing(tmp_path, seed=1) as publisher:
        file = SnapshotFile(publisher.path)
        assert file.alive
        generations = set()
        for _ in range(8):
            snapshot = file.snapshot()
            assert snapshot.root.generation == publisher.generation
            expected = publisher.rows()
            for name in TABLES:
                assert by_key(name, read(snapshot, name)) == expected[name], f"{name} of {publisher.generation}"
            generations.add(snapshot.root.generation)
            del snapshot
            publisher.change(60)
        assert len(generations) == 8
        assert file.intact_from() > 1, "no region was reused: the test proves too little"


def test_the_arrow_root_says_what_the_record_says(tmp_path):
    with publishing(tmp_path, seed=2) as publisher:
        for _ in range(3):
            file = SnapshotFile(publisher.path)
            snapshot = file.snapshot()
            root = snapshot.arrow_root().to_pylist()[0]
            own = root["sherwood"]
            assert root["cluster_id"] == file.constants.cluster_id == "sample"
            assert own["generation"] == snapshot.root.generation
            assert own["generation"] & 0xFFFFFFFF == file.head().generation_low
            assert own["history"] == file.constants.history == b"a history of 16b"
            assert own["schema_version"] == snapshot.root.schema_version
            assert states.plain(own["published_at"]) == snapshot.root.published_at_ms
            directory = os.stat(tmp_path)
            assert (own["state_device"], own["state_inode"]) == (directory.st_dev, directory.st_ino)
            assert (snapshot.root.state_device, snapshot.root.state_inode) == (directory.st_dev, directory.st_ino)
            assert own["regions"] == snapshot.root.regions == sorted(set(own["regions"]))
            assert [table["name"] for table in own["tables"]] == list(TABLES)
            for table in own["tables"]:
                of_record = snapshot.root.tables[table["name"]]
                assert table["rows"] == of_record.rows == sum(part.rows for part in of_record.parts)
                assert [tuple(part.values()) for part in table["parts"]] == [
                    (part.footer_end, part.chunks, part.rows, part.first_key) for part in of_record.parts
                ]
            publisher.change(40)


def test_the_ten_lines_of_the_page_work(tmp_path):
    page = (Path(__file__).parents[2] / "docs/format.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    assert "/run/sherwood/sample.arrow" in code
    with publishing(tmp_path, seed=3) as publisher:
        publisher.change(80)
        seen = {}
        exec(code.replace("/run/sherwood/sample.arrow", publisher.path), seen)
        expected = publisher.rows()
        for name in TABLES:
            assert by_key(name, seen["tables"][name].to_pylist()) == expected[name]


def test_a_path_alone_is_not_enough_and_a_stream_is_none(tmp_path):
    with publishing(tmp_path, seed=4, tasks=10, content=10) as publisher:
        with pytest.raises(pa.ArrowInvalid):
            pa.ipc.open_file(publisher.path)
        with pytest.raises(pa.ArrowInvalid):
            pa.ipc.open_stream(Path(publisher.path).read_bytes()).read_all()


def test_pyarrow_reads_without_allocating_or_copying_a_byte(tmp_path):
    with publishing(tmp_path, seed=5) as publisher:
        publisher.change(150)
        snapshot = SnapshotFile(publisher.path).snapshot()
        gc.collect()
        before = pa.total_allocated_bytes()
        tables = {name: snapshot.table(name) for name in TABLES}
        assert pa.total_allocated_bytes() - before == 0
        first, last = snapshot.source.address, snapshot.source.address + snapshot.source.size
        buffers = 0
        for table in tables.values():
            for column in table.columns:
                for chunk in column.chunks:
                    for buffer in filter(None, chunk.buffers()):
                        if buffer.size == 0:
                            continue
                        buffers += 1
                        assert first <= buffer.address and buffer.address + buffer.size <= last
                        region = snapshot.constants.region_of(buffer.address - first)
                        assert region in snapshot.root.regions, "a buffer outside the leased regions"
                        assert (buffer.address - first) % 64 == 0
        assert buffers > 1000


def test_the_index_says_what_the_footer_says_and_finds_every_key(tmp_path):
    with publishing(tmp_path, seed=6, tasks=2500) as publisher:
        publisher.change(120)
        snapshot = SnapshotFile(publisher.path).snapshot()
        expected = publisher.rows()
        for name in TABLES:
            for part in snapshot.root.tables[name].parts:
                index = snapshot.index(part)
                reader = snapshot._footer(part.footer_end)
                assert reader.num_record_batches == part.chunks
                until = 0
                for chunk, block in enumerate(index.blocks):
                    batch = reader.get_batch(chunk)
                    until += batch.num_rows
                    assert index.rows_until[chunk] == until
                    offset, metadata, body = block
                    message = pa.ipc.read_message(snapshot.source.slice(offset, metadata + body))
                    again = pa.ipc.read_record_batch(message, reader.schema)
                    assert again.equals(batch)
                    assert offset + metadata + body <= part.index_at < part.footer_end
            for key in list(expected[name])[::7]:
                assert states.plain(snapshot.find(name, key)) == expected[name][key], key
                for near in (key + "!", key[:-1], "\x01" + key, key[:5]):
                    found = snapshot.find(name, near)
                    assert (found is not None) == (near in expected[name]), near


def digest(snapshot) -> str:
    """Of every byte that a snapshot consists of."""
    digest = hashlib.sha256()
    for name in TABLES:
        for part in snapshot.root.tables[name].parts:
            digest.update(snapshot.source.slice(part.index_at, part.footer_end - part.index_at))
            for offset, metadata, body in snapshot.index(part).blocks:
                digest.update(snapshot.source.slice(offset, metadata + body))
    return digest.hexdigest()


def test_a_leased_snapshot_stays_as_it_is_and_one_without_a_lease_does_not(tmp_path):
    with publishing(tmp_path, seed=7) as publisher:
        publisher.change(50)
        file = SnapshotFile(publisher.path)
        held = file.snapshot()
        expected, before = publisher.rows(), digest(held)
        for _ in range(5):
            publisher.change(100)
            assert digest(held) == before
        assert held.root.generation < file.intact_from(), "the generation was not dropped: the test proves too little"
        tables = {name: held.table(name) for name in TABLES}
        size = os.stat(publisher.path).st_size
        # The tables alone keep the mapping, and that the leases.
        del held
        gc.collect()
        publisher.change(200)
        for name in TABLES:
            assert by_key(name, tables[name].to_pylist()) == expected[name]
        del tables
        gc.collect()
        # No longer leased, bytes are reused.
        snapshot = file.snapshot()
        regions = {n: (file.constants.start(n), file.constants.start(n + 1)) for n in snapshot.root.regions}
        del snapshot
        gc.collect()
        then = Path(publisher.path).read_bytes()
        publisher.change(300)
        now = Path(publisher.path).read_bytes()
        assert any(then[a:b] != now[a:b] for a, b in regions.values()), "nothing was reused: the test proves too little"
        assert len(now) <= 2 * len(then)


def test_a_snapshot_whose_daemon_died_is_copied_and_read(tmp_path):
    with publishing(tmp_path, seed=8) as publisher:
        publisher.change(70)
        expected = publisher.rows()
        publisher.kill()
        file = SnapshotFile(publisher.path)
        assert not file.alive
        snapshot = file.snapshot()
        for name in TABLES:
            assert by_key(name, through_pyarrow(snapshot, name)) == expected[name]


def test_a_copy_made_beside_a_busy_daemon_is_whole(tmp_path):
    """Reads without leases while regions are being reused: intact_from is what tells."""
    with publishing(tmp_path, seed=9, tasks=300, content=100) as publisher:
        publisher._process.stdin.write("400\n")
        publisher._process.stdin.flush()
        file = SnapshotFile(publisher.path)
        file.alive = False
        generations = set()
        for _ in range(200):
            snapshot = file.snapshot()
            generations.add(snapshot.root.generation)
            for name in TABLES:
                table = snapshot.table(name)
                table.validate(full=True)
                assert table.num_rows == snapshot.root.tables[name].rows
                by_key(name, table.select([KEYS[name]]).to_pylist())
            if snapshot.root.generation > 400:
                break
        publisher._answer()
        assert len(generations) > 1, generations
        assert {name: by_key(name, file.snapshot().table(name).to_pylist()) for name in TABLES} == publisher.rows()


def test_an_empty_table_has_its_schema(tmp_path):
    with publishing(tmp_path, seed=10, nodes=0, tasks=0, content=1) as publisher:
        snapshot = SnapshotFile(publisher.path).snapshot()
        for name, kind in (("nodes", states.NODE), ("tasks", states.TASK)):
            table = snapshot.table(name)
            assert table.num_rows == 0
            assert table.schema.names[: kind.num_fields] == [field.name for field in kind]
            for field in kind:
                assert table.schema.field(field.name).type == field.type
                assert table.schema.field(field.name).nullable == (field.name != KEYS[name])


def test_columns_that_nobody_here_knows_reach_every_reader(tmp_path):
    state = states.document(11, 20, 50, 30)
    table = states.as_table(state)
    racks = pa.array(range(len(state["nodes"])), pa.int64())
    nodes = table["nodes"].combine_chunks().values
    fields = [nodes.field(number) for number in range(nodes.type.num_fields)]
    nodes = pa.StructArray.from_arrays([*fields, racks], fields=[*nodes.type, pa.field("rack", pa.int64())])
    table = table.set_column(3, "nodes", pa.ListArray.from_arrays([0, len(nodes)], nodes))
    table = table.append_column("note", pa.array(["kept"]))
    path = tmp_path / "state_sample.parquet"
    pq.write_table(table, path)
    with publishing(tmp_path, seed=11, state=path) as publisher:
        publisher.change(20)
        expected = publisher.rows()
        assert any("rack" in row for row in expected["nodes"].values())
        snapshot = SnapshotFile(publisher.path).snapshot()
        for read in READERS:
            assert by_key("nodes", read(snapshot, "nodes")) == expected["nodes"]
        assert snapshot.arrow_root()["note"].to_pylist() == ["kept"]
        assert pq.read_table(publisher.out)["note"].to_pylist() == ["kept"]


def test_a_header_with_a_flipped_bit_and_one_of_a_newer_version_are_refused(tmp_path):
    with publishing(tmp_path, seed=12, tasks=10, content=10) as publisher:
        good = Path(publisher.path).read_bytes()
        for at, bit in ((0, 1), (9, 2), (16, 2), (30, 4), (90, 8), (257, 1)):
            bad = bytearray(good)
            bad[at] ^= bit
            path = tmp_path / "bad.arrow"
            path.write_bytes(bad)
            with pytest.raises(FormatError):
                SnapshotFile(str(path))


# Parquet, theirs to ours.


def ours(path: Path):
    """A state file as Sherwood reads it."""
    done = subprocess.run([HELPER, "rows", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return states.parse_lines(done.stdout)


def loose(kind: pa.DataType, form: str) -> pa.DataType:
    """A type as another writer may have it for the same values."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(loose(field.type, form)) for field in kind])
    if pa.types.is_list(kind):
        item = loose(kind.value_type, form)
        return pa.large_list(item) if form == "large" else pa.list_(item)
    if pa.types.is_string(kind):
        return {"large": pa.large_string(), "dictionary": pa.dictionary(pa.int32(), pa.string())}.get(form, kind)
    if pa.types.is_int32(kind):
        return {"wide": pa.int64()}.get(form, kind)
    if pa.types.is_float32(kind):
        return {"wide": pa.float64()}.get(form, kind)
    if pa.types.is_timestamp(kind):
        units = {"us": pa.timestamp("us"), "ns": pa.timestamp("ns"), "zone": pa.timestamp("us", "UTC"),
                 "far": pa.timestamp("ms", "America/New_York")}
        return units.get(form, kind)
    return kind


def loose_schema(form: str) -> pa.Schema:
    return pa.schema([field.with_type(loose(field.type, form)) for field in DOCUMENT])


def instants_of(state: dict, zone) -> dict:
    """The same state with its times as aware datetimes, as a writer with zones holds them."""
    def aware(value):
        if hasattr(value, "tzinfo"):
            return value.replace(tzinfo=zone)
        if isinstance(value, dict):
            return {key: aware(item) for key, item in value.items()}
        return [aware(item) for item in value] if isinstance(value, list) else value
    return aware(state)


def by_pyarrow(form: str, **options):
    def write(state, path):
        if form in ("zone", "far"):
            state = instants_of(state, datetime.timezone.utc)
        pq.write_table(states.as_table(state, loose_schema(form)), path, **options)
    return write


def by_pandas(state, path):
    pd.DataFrame([state]).to_parquet(path, engine="pyarrow")


def by_polars(state, path):
    pl.from_arrow(states.as_table(state)).write_parquet(path)


def by_polars_alone(state, path):
    pl.DataFrame([state], infer_schema_length=None).write_parquet(path)


def by_duckdb(state, path):
    with duckdb.connect() as connection:
        connection.register("state", states.as_table(state))
        connection.execute(f"COPY (SELECT * FROM state) TO '{path}' (FORMAT parquet)")


WRITERS = {
    "pyarrow": by_pyarrow("document"),
    "pyarrow, format 1.0, uncompressed": by_pyarrow("document", version="1.0", compression="none"),
    "pyarrow, pages of version 2": by_pyarrow("document", data_page_version="2.0", compression="zstd"),
    "pyarrow, no Arrow schema": by_pyarrow("document", store_schema=False),
    "pyarrow, lz4, no dictionaries": by_pyarrow("document", compression="lz4", use_dictionary=False),
    "pyarrow, large": by_pyarrow("large"),
    "pyarrow, dictionaries": by_pyarrow("dictionary"),
    "pyarrow, wide": by_pyarrow("wide"),
    "pyarrow, us": by_pyarrow("us"),
    "pyarrow, ns": by_pyarrow("ns"),
    "pyarrow, UTC": by_pyarrow("zone"),
    "pyarrow, New York": by_pyarrow("far"),
    "pandas": by_pandas,
    "polars": by_polars,
    "polars, inferred": by_polars_alone,
    "duckdb": by_duckdb,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_sherwood_reads_every_row_that_others_wrote(tmp_path, writer):
    state = states.document(21, 30, 120, 60)
    path = tmp_path / "state_sample.parquet"
    WRITERS[writer](state, path)
    cluster, rows = ours(path)
    assert rows == states.rows_of(state)
    assert cluster == states.plain({key: value for key, value in state.items() if key not in TABLES})


def test_sherwood_reads_states_with_missing_and_further_columns(tmp_path):
    path = tmp_path / "state_sample.parquet"
    kind = pa.struct([("site", pa.string()), ("id", pa.dictionary(pa.int8(), pa.string())), ("status", pa.large_string())])
    schema = pa.schema([("cluster_id", pa.string()), ("tasks", pa.list_(kind)), ("nodes", pa.null()), ("shard", pa.int32())])
    rows = [{"site": "b", "id": "t2", "status": None}, {"site": None, "id": "t1", "status": "pending"}]
    pq.write_table(pa.Table.from_pylist([{"cluster_id": "sample", "tasks": rows, "shard": 7}], schema=schema), path)
    cluster, found = ours(path)
    assert cluster == {"cluster_id": "sample", "shard": 7}
    assert found["tasks"] == {"t1": {"id": "t1", "status": "pending"}, "t2": {"id": "t2", "site": "b"}}
    assert found["nodes"] == found["content"] == {}


# Parquet, ours to theirs.


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory):
    """A state, and the file that Sherwood wrote of it."""
    directory = tmp_path_factory.mktemp("rewritten")
    state = states.document(31, 30, 120, 60)
    source, out = states.write(state, directory / "theirs.parquet"), directory / "state_sample.parquet"
    subprocess.run([HELPER, "rewrite", str(source), str(out)], check=True)
    return state, out


def test_the_file_has_the_documents_schema_and_says_its_version(rewritten):
    _, path = rewritten
    file = pq.ParquetFile(path)
    assert file.schema_arrow.remove_metadata().equals(DOCUMENT), file.schema_arrow
    assert file.metadata.num_rows == 1
    assert file.metadata.metadata[b"sherwood.schema_version"] == b"1"
    assert file.metadata.created_by.startswith("sherwood version ")
    assert "element" in str(file.schema), "list items carry the name that the format asks for"


def test_the_files_checksum_is_what_the_page_says(rewritten):
    _, path = rewritten
    data = path.read_bytes()
    digits = pq.ParquetFile(path).metadata.metadata[b"sherwood.crc32c"]
    assert len(digits) == 8 and data.count(digits) == 1
    assert int(digits, 16) == crc32c(data.replace(digits, b"0" * 8))


def seen_by_pyarrow(path):
    return pq.read_table(path).to_pylist()[0]


def seen_by_pandas(path):
    # NumPy has no null integers: pandas' older types make floats of the columns that have any, and lose digits.
    return pd.read_parquet(path, dtype_backend="pyarrow").to_dict("records")[0]


def seen_by_polars(path):
    return pl.read_parquet(path).to_dicts()[0]


def seen_by_duckdb(path):
    with duckdb.connect() as connection:
        names = [column[0] for column in connection.execute(f"SELECT * FROM '{path}'").description]
        return dict(zip(names, connection.fetchone()))


@pytest.mark.parametrize("see", [seen_by_pyarrow, seen_by_pandas, seen_by_polars, seen_by_duckdb])
def test_everybody_reads_every_row_that_sherwood_wrote(rewritten, see):
    state, path = rewritten
    seen = see(path)
    assert list(seen) == DOCUMENT.names
    assert states.rows_of(seen) == states.rows_of(state)
    for key in ("cluster_id", "master_id", "updated_at"):
        assert states.plain(seen[key]) == states.plain(state[key])
