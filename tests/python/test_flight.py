"""pyarrow.flight writes to Sherwood and reads from it, as docs/flight.md says.

`cargo test -p sherwood-tests --test other_readers` runs this, and gives it the helper program in SHERWOOD_FLIGHT_STUB.
"""

from __future__ import annotations

import json
import os
import subprocess

import pyarrow as pa
import pyarrow.flight as flight
import pytest

STUB = os.environ.get("SHERWOOD_FLIGHT_STUB", "")


@pytest.fixture
def served(tmp_path):
    """A client, and what the engine was asked, line by line."""
    assert STUB, "SHERWOOD_FLIGHT_STUB names the helper: run `cargo test -p sherwood-tests --test other_readers`"
    stub = subprocess.Popen([STUB, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    socket = stub.stdout.readline().strip()
    client = flight.FlightClient(
        f"grpc+unix://{socket}", generic_options=[("grpc.default_authority", "localhost")]
    )
    yield client, lambda: json.loads(stub.stdout.readline())
    client.close()
    stub.stdin.close()
    assert stub.wait() == 0


def act(client, name, body):
    [result] = client.do_action(flight.Action(name, body if isinstance(body, bytes) else json.dumps(body).encode()))
    return json.loads(result.body.to_pybytes())


def put(client, command, table):
    writer, answers = client.do_put(flight.FlightDescriptor.for_command(json.dumps(command)), table.schema)
    writer.write_table(table)
    writer.done_writing()
    answer = answers.read()
    writer.close()  # raises where there is no answer
    return json.loads(answer.to_pybytes())


def test_without_the_authority_grpc_itself_sends_what_no_server_takes(served, tmp_path):
    client = flight.FlightClient(f"grpc+unix://{tmp_path}/c.sock")
    with pytest.raises(pa.ArrowException):
        act(client, "status", b"")


def test_actions_are_listed_and_done(served):
    client, asked = served
    names = {action.type for action in client.list_actions()}
    assert {"transaction", "claim", "outcome", "status", "watch"} <= names and len(names) == 21
    answer = act(client, "transaction", {"id": "i1", "ops": [{"delete": "content", "key": "c"}]})
    assert answer == {"id": "i1", "outcome": "done", "generation": 6}
    assert asked() == {"ops": 1}
    assert act(client, "start", {"task": "t"})["outcome"] == "done"
    assert asked() == {"action": "start"}
    refused = act(client, "transaction", b'{"ops":')
    assert refused["outcome"] == "refused" and "JSON" in refused["reason"]
    assert act(client, "outcome", {"id": "i1"})["outcome"] == "unknown"
    assert act(client, "status", b"") == {"generation": 5}
    with pytest.raises(pa.ArrowNotImplementedError, match="explode"):
        act(client, "explode", {})


def test_tables_are_listed_described_and_read(served):
    client, _ = served
    infos = {info.descriptor.path[0].decode(): info for info in client.list_flights()}
    assert list(infos) == ["cluster", "nodes", "tasks", "content"]
    info = client.get_flight_info(flight.FlightDescriptor.for_path("tasks"))
    assert info.total_records == 3
    tasks = client.do_get(info.endpoints[0].ticket).read_all()
    tasks.validate(full=True)
    assert tasks.num_rows == 3 and tasks.schema.metadata[b"sherwood.generation"] == b"5"
    assert tasks.schema.equals(client.get_schema(info.descriptor).schema)
    assert client.do_get(flight.Ticket(b'{"table":"cluster"}')).read_all()["cluster_id"].to_pylist() == ["c"]
    with pytest.raises(KeyError, match="cats"):
        client.do_get(flight.Ticket(b'{"table":"cats"}')).read_all()


def test_rows_are_put_patched_and_deleted_in_the_tables_types(served):
    client, asked = served
    rows = pa.table(
        {
            "id": pa.array(["a", "b"], pa.large_string()),
            "created_at": pa.array([1_500_000, None], pa.timestamp("us", "UTC")),
            "priority": [7, None],
            "input_cids": [["x", None], []],
            "resources": [{"cpu_cores": 2}, None],
            "error": pa.nulls(2),
        }
    )
    answer = put(client, {"put": "tasks", "id": "i2"}, rows)
    assert answer == {"id": "i2", "outcome": "done", "generation": 6}
    told = asked()
    assert (told["table"], told["mode"], told["count"]) == ("tasks", "put", 2)
    first = told["first"][0]
    assert (first["id"], first["created_at"], first["priority"]) == ("a", 1500, 7)
    assert first["input_cids"] == ["x", None] and first["resources"]["cpu_cores"] == 2
    assert put(client, {"patch": "nodes"}, pa.table({"id": ["n"], "role": ["master"]}))["outcome"] == "done"
    assert asked()["mode"] == "patch"
    assert put(client, {"delete": "content"}, pa.table({"cid": ["c"]}))["outcome"] == "done"
    assert asked() == {"table": "content", "mode": "delete", "count": 1, "first": [{"cid": "c"}]}


def test_several_batches_are_one_transaction(served):
    client, asked = served
    batches = [pa.record_batch({"id": [f"t{at}-{row}" for row in range(1000)]}) for at in range(20)]
    assert put(client, {"put": "tasks"}, pa.Table.from_batches(batches))["outcome"] == "done"
    assert asked()["count"] == 20_000


def test_who_looks_at_no_answer_is_told_all_the_same(served):
    client, _ = served
    descriptor = flight.FlightDescriptor.for_command(json.dumps({"put": "tasks", "id": "no"}))
    table = pa.table({"id": ["a"]})
    writer, _answers = client.do_put(descriptor, table.schema)
    writer.write_table(table)
    with pytest.raises(pa.ArrowException, match="it says no"):
        writer.close()


@pytest.mark.parametrize(
    ("command", "table", "told"),
    [
        ({"put": "cats"}, pa.table({"id": ["a"]}), "cats"),
        ({"put": "tasks"}, pa.table({"id": [1]}), "tasks.id"),
        ({"put": "tasks"}, pa.table({"id": ["a"], "colour": ["red"]}), "colour"),
        ({"put": "tasks"}, pa.table({"id": pa.array(["a"]).dictionary_encode()}), "id"),
        ({"put": "tasks"}, pa.table({"id": ["a"], "priority": [1 << 40]}), "priority"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(served, command, table, told):
    client, _ = served
    with pytest.raises(pa.ArrowException, match=told):
        put(client, command, table)


def test_an_exchange_answers_in_order(served):
    client, _ = served
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b'{"transactions":1}'))
    for number in range(100):
        writer.write_metadata(json.dumps({"do": "start", "id": f"i{number}", "task": "t"}).encode())
    writer.done_writing()
    answers = [json.loads(reader.read_chunk().app_metadata.to_pybytes())["id"] for _ in range(100)]
    assert answers == [f"i{number}" for number in range(100)]
    writer.close()
