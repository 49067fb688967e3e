"""Random cluster states in the document's schema, and values in a form that compares."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TABLES = ("nodes", "tasks", "content")
KEYS = {"nodes": "id", "tasks": "id", "content": "cid"}

STRINGS = pa.list_(pa.string())
TIME = pa.timestamp("ms")
NODE = pa.struct(
    [
        ("id", pa.string()),
        ("role", pa.string()),
        ("status", pa.string()),
        ("peers", STRINGS),
        ("capabilities", STRINGS),
        (
            "resources",
            pa.struct(
                [
                    ("cpu_count", pa.int32()),
                    ("cpu_load", pa.float32()),
                    ("gpu_count", pa.int32()),
                    ("gpu_available", pa.bool_()),
                    ("memory_total", pa.int64()),
                    ("memory_available", pa.int64()),
                    ("disk_total", pa.int64()),
                    ("disk_available", pa.int64()),
                ]
            ),
        ),
    ]
)
TASK = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("status", pa.string()),
        ("created_at", TIME),
        ("updated_at", TIME),
        ("assigned_to", pa.string()),
        ("resources", pa.struct([("cpu_cores", pa.int32()), ("gpu_cores", pa.int32()), ("memory_mb", pa.int32())])),
        ("input_cid", pa.string()),
        ("output_cid", pa.string()),
        ("input_cids", STRINGS),
        ("output_cids", STRINGS),
    ]
)
CONTENT = pa.struct(
    [
        ("cid", pa.string()),
        ("size", pa.int64()),
        ("created_at", TIME),
        ("providers", STRINGS),
        ("pinned", pa.bool_()),
        ("replication", pa.int32()),
    ]
)
DOCUMENT = pa.schema(
    [
        ("cluster_id", pa.string()),
        ("master_id", pa.string()),
        ("updated_at", TIME),
        ("nodes", pa.list_(NODE)),
        ("tasks", pa.list_(TASK)),
        ("content", pa.list_(CONTENT)),
    ]
)


def document(seed: int, nodes: int, tasks: int, content: int) -> dict:
    """A state as plain Python values: nulls everywhere but in keys, rows in no order."""
    rng = random.Random(seed)

    def maybe(value):
        return None if rng.random() < 0.1 else value

    def text():
        return "".join(rng.choice("abcdefgh-0123 é漢🏹") for _ in range(rng.randrange(12)))

    def texts():
        return [maybe(text()) for _ in range(rng.randrange(4))]

    def time():
        # Whole milliseconds, before and after the epoch.
        return datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=rng.randrange(-(10**11), 2 * 10**12))

    def int32():
        return rng.choice([0, 1, -1, 2**31 - 1, -(2**31), rng.randrange(10**6)])

    def int64():
        return rng.choice([0, 2**53 + 1, -(2**63), 2**63 - 1, rng.randrange(10**15)])

    def value(kind: pa.DataType):
        if pa.types.is_string(kind):
            return maybe(text())
        if pa.types.is_list(kind):
            return maybe(texts())
        if pa.types.is_struct(kind):
            return maybe({field.name: value(field.type) for field in kind})
        if pa.types.is_timestamp(kind):
            return maybe(time())
        if pa.types.is_boolean(kind):
            return maybe(rng.random() < 0.5)
        if pa.types.is_floating(kind):
            return maybe(rng.randrange(1 << 20) / 64)  # a float32 holds it
        return maybe(int32() if kind.bit_width == 32 else int64())

    def rows(kind: pa.StructType, key: str, count: int):
        made = []
        for number in rng.sample(range(10 * count + 1), count):
            row = {field.name: value(field.type) for field in kind}
            # Long common prefixes and short keys, so that fences collide.
            row[key] = rng.choice(["", "cluster-entity-", "é"]) + f"{number:06}" + rng.choice(["", "-x", "\U0001f3f9"])
            made.append(row)
        return list({row[key]: row for row in made}.values())

    return {
        "cluster_id": "sample",
        "master_id": maybe("node-1"),
        "updated_at": time(),
        "nodes": rows(NODE, "id", nodes),
        "tasks": rows(TASK, "id", tasks),
        "content": rows(CONTENT, "cid", content),
    }


def as_table(state: dict, schema: pa.Schema = DOCUMENT) -> pa.Table:
    return pa.Table.from_pylist([state], schema=schema)


def write(state: dict, path: Path, **options) -> Path:
    pq.write_table(as_table(state), path, **options)
    return path


EPOCH = datetime.datetime(1970, 1, 1)


def plain(value):
    """Any tool's Python value as JSON has it: times as milliseconds, no keys for nulls."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return (value - EPOCH) // datetime.timedelta(milliseconds=1)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    return value


def rows_of(document: dict) -> dict[str, dict[str, dict]]:
    """The rows of each table of a document by their key, in a form that compares."""
    made = {}
    for table in TABLES:
        rows = plain(document.get(table)) or []
        made[table] = {row[KEYS[table]]: row for row in rows}
        assert len(made[table]) == len(rows), f"{table}: a key twice"
    return made


def read_rows(path: Path) -> dict[str, dict[str, dict]]:
    """The same of a Parquet state, as pyarrow reads it."""
    return rows_of(pq.read_table(path).to_pylist()[0])


def parse_lines(text: str) -> tuple[dict, dict[str, dict[str, dict]]]:
    """What `make_snapshot rows` printed: the cluster's row, and the rows of each table by key."""
    cluster, made = None, {table: {} for table in TABLES}
    for line in text.splitlines():
        line = json.loads(line)
        row = plain(line["row"])
        if line["table"] == "cluster":
            cluster = row
        else:
            made[line["table"]][row[KEYS[line["table"]]]] = row
    return cluster, made
