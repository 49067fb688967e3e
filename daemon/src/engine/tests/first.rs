//! What a single transaction does.

use serde_json::json;
use sherwood_shared::schema::TableId;
use sherwood_shared::state::State;
use sherwood_shared::transaction::OutcomeKind;

use super::doubles::*;

#[test]
fn a_put_is_logged_published_and_answered() {
    let mut engine = engine(State::empty("c"));
    let answer = one(
        &mut engine,
        transaction(
            &json!({"id": "a", "ops": [{"put": "tasks", "row": {"id": "t1", "status": "pending", "resources": {"cpu_cores": 2}}}]}),
        ),
    );
    assert_eq!(answer.outcome, OutcomeKind::Done, "{answer:?}");
    assert_eq!(answer.generation, Some(2));
    assert_eq!(
        rows(&engine, TableId::Tasks)["t1"],
        json!({"id": "t1", "status": "pending", "resources": {"cpu_cores": 2}, "created_at": START_MS, "updated_at": START_MS})
    );
    assert_eq!(
        cluster(&engine),
        json!({"cluster_id": "c", "updated_at": START_MS})
    );
    let entries = &engine.journal().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].outcomes.len(), 1);
}
