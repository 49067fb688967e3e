//! Actions: from a name and JSON to a request, and which there are.

use arrow_flight::ActionType;
use serde_json::{Map, Value};
use sherwood_shared::transaction::{Answer, DomainOp, FormError, Transaction, object};

use super::limits::Limits;
use crate::engine::Request;

/// Actions beside the domain operations.
const OTHERS: [(&str, &str); 4] = [
    (
        "transaction",
        "{\"id\":..,\"if\":[..],\"ops\":[..]}: operations that apply together; answers one JSON object",
    ),
    (
        "outcome",
        "{\"id\":..}: what became of the transaction with this id, if it is remembered",
    ),
    ("status", "{}: how the daemon is, as one JSON object"),
    (
        "watch",
        "{\"from\":GENERATION,\"tables\":[..]}: the changes after a generation, one JSON object each, without end",
    ),
];

/// Reads a transaction or a domain operation. The error is the answer: nothing was done.
pub fn parse(action: &str, body: &[u8], limits: &Limits) -> Result<Request, Answer> {
    if let Some(refusal) = too_large(body.len(), limits) {
        return Err(refusal);
    }
    let fields = object(body).map_err(|error| refused(None, &error))?;
    of_fields(action, fields, limits)
}

/// The same, with the action's name in the object, as `do`: a message of an exchange.
pub fn parse_message(body: &[u8], limits: &Limits) -> Result<Request, Answer> {
    if let Some(refusal) = too_large(body.len(), limits) {
        return Err(refusal);
    }
    let mut fields = object(body).map_err(|error| refused(None, &error))?;
    match fields.shift_remove("do") {
        Some(Value::String(action)) => of_fields(&action, fields, limits),
        Some(_) => Err(Answer::refused(
            id_of(&fields),
            None,
            "`do` has to be the name of an action",
        )),
        None => Err(Answer::refused(
            id_of(&fields),
            None,
            "the message has no `do`; it has to be \"transaction\" or the name of a domain operation",
        )),
    }
}

fn of_fields(action: &str, fields: Map<String, Value>, limits: &Limits) -> Result<Request, Answer> {
    let id = id_of(&fields);
    if action != "transaction" {
        return match DomainOp::from_object(action, fields) {
            Ok((id, op)) => Ok(Request::Domain { id, op }),
            Err(error) => Err(refused(id, &error)),
        };
    }
    let transaction = Transaction::from_object(fields).map_err(|error| refused(id, &error))?;
    let ops = transaction.ops.len().max(transaction.conditions.len());
    if ops > limits.transaction_ops {
        let reason = format!(
            "the transaction has {ops} operations or conditions, and {} are the most; send rows in bulk (DoPut), or several transactions",
            limits.transaction_ops
        );
        return Err(Answer::refused(transaction.id, None, reason));
    }
    Ok(Request::Transaction(transaction))
}

/// So that the refusal can be told from others.
fn id_of(fields: &Map<String, Value>) -> Option<String> {
    fields.get("id").and_then(Value::as_str).map(str::to_owned)
}

fn refused(id: Option<String>, error: &FormError) -> Answer {
    Answer::refused(id, None, error.to_string())
}

/// The refusal of a body of so many bytes, if it is too large: without an id, since nobody reads it. To be asked before
/// the body is charged, for which there may never be room.
pub(super) fn too_large(bytes: usize, limits: &Limits) -> Option<Answer> {
    if bytes <= limits.json_bytes {
        return None;
    }
    let reason = format!(
        "the request has {bytes} bytes of JSON, and {} are the most; send rows in bulk (DoPut), or several transactions",
        limits.json_bytes
    );
    Some(Answer::refused(None, None, reason))
}

/// Is there such a domain operation, or is it `transaction`?
pub(super) fn is_write(action: &str) -> bool {
    action == "transaction" || DomainOp::ACTIONS.contains(&action)
}

/// All of them, for ListActions.
pub(super) fn list() -> Vec<ActionType> {
    let others = OTHERS.map(|(name, what)| (name, what.to_owned()));
    let domain = DomainOp::ACTIONS.map(|name| {
        (
            name,
            "a domain operation; see docs/transactions.md".to_owned(),
        )
    });
    others
        .into_iter()
        .chain(domain)
        .map(|(name, description)| ActionType {
            r#type: name.to_owned(),
            description,
        })
        .collect()
}
