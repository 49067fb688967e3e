//! Domain operations: what workers, masters and agents do, as one call each.
//!
//! Each is an action of its own with a JSON object as its body. The engine judges it against the newest
//! state and applies it as one transaction; docs/transactions.md has the rules.

use serde_json::{Map, Value, json};

use super::parse::{Fields, FormError, object};

/// One domain operation.
#[derive(Clone, Debug, PartialEq)]
pub enum DomainOp {
    /// Gives a pending task to a node that is online: `{"task","node"}`.
    Assign {
        /// The task.
        task: String,
        /// The node.
        node: String,
    },
    /// Gives the oldest pending task that fits the node to it: `{"node","types"?}`.
    Claim {
        /// The node.
        node: String,
        /// Which types of task; empty: any.
        types: Vec<String>,
    },
    /// An assigned task runs: `{"task"}`.
    Start {
        /// The task.
        task: String,
    },
    /// A task is done: `{"task","outputs"?}`.
    Complete {
        /// The task.
        task: String,
        /// CIDs of what it made.
        outputs: Vec<String>,
    },
    /// A task went wrong: `{"task","reason"?}`.
    Fail {
        /// The task.
        task: String,
        /// Why.
        reason: Option<String>,
    },
    /// Back to pending: `{"task"}`.
    Release {
        /// The task.
        task: String,
    },
    /// An open task is not wanted any more: `{"task"}`.
    Cancel {
        /// The task.
        task: String,
    },
    /// A failed task is pending again: `{"task"}`.
    Retry {
        /// The task.
        task: String,
    },
    /// A node joins, or comes again: `{"node": {row}}`.
    Register {
        /// The node's row, with its id.
        row: Map<String, Value>,
    },
    /// A node lives: `{"node","set"?}`.
    Heartbeat {
        /// The node.
        node: String,
        /// What changed, such as its resources.
        set: Map<String, Value>,
    },
    /// A node leaves: `{"node"}`.
    RemoveNode {
        /// The node.
        node: String,
    },
    /// Content is there: `{"content": {row}}`.
    AddContent {
        /// The content's row, with its cid.
        row: Map<String, Value>,
    },
    /// Content is to be kept: `{"cid"}`.
    Pin {
        /// The content.
        cid: String,
    },
    /// Content need not be kept: `{"cid"}`.
    Unpin {
        /// The content.
        cid: String,
    },
    /// Content is gone: `{"cid"}`.
    RemoveContent {
        /// The content.
        cid: String,
    },
    /// A node has a copy of content: `{"cid","node"}`.
    AddProvider {
        /// The content.
        cid: String,
        /// The node.
        node: String,
    },
    /// A node has no copy any more: `{"cid","node"}`.
    DropProvider {
        /// The content.
        cid: String,
        /// The node.
        node: String,
    },
}

impl DomainOp {
    /// The names of all actions.
    pub const ACTIONS: [&str; 17] = [
        "assign",
        "claim",
        "start",
        "complete",
        "fail",
        "release",
        "cancel",
        "retry",
        "register",
        "heartbeat",
        "remove_node",
        "add_content",
        "pin",
        "unpin",
        "remove_content",
        "add_provider",
        "drop_provider",
    ];

    /// The action's name.
    #[must_use]
    pub fn action(&self) -> &'static str {
        match self {
            Self::Assign { .. } => "assign",
            Self::Claim { .. } => "claim",
            Self::Start { .. } => "start",
            Self::Complete { .. } => "complete",
            Self::Fail { .. } => "fail",
            Self::Release { .. } => "release",
            Self::Cancel { .. } => "cancel",
            Self::Retry { .. } => "retry",
            Self::Register { .. } => "register",
            Self::Heartbeat { .. } => "heartbeat",
            Self::RemoveNode { .. } => "remove_node",
            Self::AddContent { .. } => "add_content",
            Self::Pin { .. } => "pin",
            Self::Unpin { .. } => "unpin",
            Self::RemoveContent { .. } => "remove_content",
            Self::AddProvider { .. } => "add_provider",
            Self::DropProvider { .. } => "drop_provider",
        }
    }

    /// Reads the body of `action`: the request's id, if it has one, and the operation.
    ///
    /// # Errors
    ///
    /// The first thing that is not of the documented form; [`FormError::Action`] for an unknown name.
    pub fn from_json(action: &str, body: &[u8]) -> Result<(Option<String>, Self), FormError> {
        Self::from_object(action, object(body)?)
    }

    /// The same, of an object that was read already.
    pub fn from_object(
        action: &str,
        body: Map<String, Value>,
    ) -> Result<(Option<String>, Self), FormError> {
        let mut fields = Fields::new(action, body);
        let id = fields.id()?;
        let (op, allowed) = match action {
            "assign" => {
                let (task, node) = (fields.key("task")?, fields.key("node")?);
                (Self::Assign { task, node }, "id, task and node")
            }
            "claim" => {
                let (node, types) = (fields.key("node")?, fields.texts("types")?);
                (Self::Claim { node, types }, "id, node and types")
            }
            "complete" => {
                let (task, outputs) = (fields.key("task")?, fields.texts("outputs")?);
                (Self::Complete { task, outputs }, "id, task and outputs")
            }
            "fail" => {
                let (task, reason) = (fields.key("task")?, fields.optional_text("reason")?);
                (Self::Fail { task, reason }, "id, task and reason")
            }
            "start" | "release" | "cancel" | "retry" => {
                let task = fields.key("task")?;
                let op = match action {
                    "start" => Self::Start { task },
                    "release" => Self::Release { task },
                    "cancel" => Self::Cancel { task },
                    _ => Self::Retry { task },
                };
                (op, "id and task")
            }
            "register" => {
                let row = fields.object("node")?;
                (Self::Register { row }, "id and node")
            }
            "heartbeat" => {
                let node = fields.key("node")?;
                let set = match fields.has("set") {
                    true => fields.object("set")?,
                    false => {
                        fields.drop_nulls(&["set"]);
                        Map::new()
                    }
                };
                (Self::Heartbeat { node, set }, "id, node and set")
            }
            "remove_node" => {
                let node = fields.key("node")?;
                (Self::RemoveNode { node }, "id and node")
            }
            "add_content" => {
                let row = fields.object("content")?;
                (Self::AddContent { row }, "id and content")
            }
            "pin" | "unpin" | "remove_content" => {
                let cid = fields.key("cid")?;
                let op = match action {
                    "pin" => Self::Pin { cid },
                    "unpin" => Self::Unpin { cid },
                    _ => Self::RemoveContent { cid },
                };
                (op, "id and cid")
            }
            "add_provider" | "drop_provider" => {
                let (cid, node) = (fields.key("cid")?, fields.key("node")?);
                let op = match action {
                    "add_provider" => Self::AddProvider { cid, node },
                    _ => Self::DropProvider { cid, node },
                };
                (op, "id, cid and node")
            }
            _ => {
                return Err(FormError::Action {
                    action: action.to_owned(),
                });
            }
        };
        fields.end(allowed)?;
        Ok((id, op))
    }

    /// The body, with the request's id if it has one.
    #[must_use]
    pub fn body(&self, id: Option<&str>) -> Map<String, Value> {
        let fields = match self {
            Self::Assign { task, node } => json!({"task": task, "node": node}),
            Self::Claim { node, types } if types.is_empty() => json!({"node": node}),
            Self::Claim { node, types } => json!({"node": node, "types": types}),
            Self::Complete { task, outputs } if outputs.is_empty() => json!({"task": task}),
            Self::Complete { task, outputs } => json!({"task": task, "outputs": outputs}),
            Self::Fail { task, reason: None } => json!({"task": task}),
            Self::Fail {
                task,
                reason: Some(reason),
            } => json!({"task": task, "reason": reason}),
            Self::Start { task }
            | Self::Release { task }
            | Self::Cancel { task }
            | Self::Retry { task } => json!({"task": task}),
            Self::Register { row } => json!({"node": row}),
            Self::Heartbeat { node, set } if set.is_empty() => json!({"node": node}),
            Self::Heartbeat { node, set } => json!({"node": node, "set": set}),
            Self::RemoveNode { node } => json!({"node": node}),
            Self::AddContent { row } => json!({"content": row}),
            Self::Pin { cid } | Self::Unpin { cid } | Self::RemoveContent { cid } => {
                json!({"cid": cid})
            }
            Self::AddProvider { cid, node } | Self::DropProvider { cid, node } => {
                json!({"cid": cid, "node": node})
            }
        };
        let mut body = Map::new();
        if let Some(id) = id {
            body.insert("id".to_owned(), json!(id));
        }
        if let Value::Object(fields) = fields {
            body.extend(fields);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_comes_back_as_it_was_written() {
        let bodies = [
            ("assign", r#"{"id":"i","task":"t","node":"n"}"#),
            ("claim", r#"{"node":"n"}"#),
            ("claim", r#"{"id":"i","node":"n","types":["a","b"]}"#),
            ("start", r#"{"task":"t"}"#),
            ("complete", r#"{"task":"t","outputs":["c"]}"#),
            ("complete", r#"{"task":"t"}"#),
            ("fail", r#"{"task":"t","reason":"why"}"#),
            ("fail", r#"{"task":"t"}"#),
            ("release", r#"{"task":"t"}"#),
            ("cancel", r#"{"task":"t"}"#),
            ("retry", r#"{"task":"t"}"#),
            ("register", r#"{"node":{"id":"n"}}"#),
            (
                "heartbeat",
                r#"{"node":"n","set":{"resources":{"cpu_load":0.5}}}"#,
            ),
            ("heartbeat", r#"{"node":"n"}"#),
            ("remove_node", r#"{"node":"n"}"#),
            ("add_content", r#"{"content":{"cid":"c"}}"#),
            ("pin", r#"{"cid":"c"}"#),
            ("unpin", r#"{"cid":"c"}"#),
            ("remove_content", r#"{"cid":"c"}"#),
            ("add_provider", r#"{"cid":"c","node":"n"}"#),
            ("drop_provider", r#"{"cid":"c","node":"n"}"#),
        ];
        for action in DomainOp::ACTIONS {
            assert!(bodies.iter().any(|(name, _)| *name == action), "{action}");
        }
        for (action, body) in bodies {
            let (id, op) = DomainOp::from_json(action, body.as_bytes()).expect(body);
            assert_eq!(op.action(), action);
            let written = Value::Object(op.body(id.as_deref())).to_string();
            assert_eq!(written, body, "{action}");
        }
    }

    #[test]
    fn null_says_as_much_as_a_field_that_is_left_out() {
        for (action, with, without) in [
            (
                "fail",
                r#"{"id":null,"task":"t","reason":null}"#,
                r#"{"task":"t"}"#,
            ),
            ("heartbeat", r#"{"node":"n","set":null}"#, r#"{"node":"n"}"#),
            ("claim", r#"{"node":"n","types":null}"#, r#"{"node":"n"}"#),
            (
                "complete",
                r#"{"task":"t","outputs":null}"#,
                r#"{"task":"t"}"#,
            ),
        ] {
            let read = DomainOp::from_json(action, with.as_bytes()).expect(with);
            let plain = DomainOp::from_json(action, without.as_bytes()).expect(without);
            assert_eq!(read, plain, "{action} {with}");
        }
    }

    #[test]
    fn what_is_not_of_the_form_is_refused_by_name() {
        for (action, body, told) in [
            ("explode", "{}", "explode"),
            ("assign", r#"{"task":"t"}"#, "\"node\""),
            ("assign", r#"{"task":"t","node":"n","nod":1}"#, "\"nod\""),
            ("claim", r#"{"node":"n","types":"a"}"#, "list"),
            ("claim", r#"{"node":"n","types":[1]}"#, "list of texts"),
            ("start", r#"{"task":""}"#, "1 to 1024"),
            ("register", r#"{"node":"n"}"#, "object"),
            ("fail", r#"{"task":"t","reason":1}"#, "text"),
            ("start", r#"{"task":null}"#, "\"task\""),
        ] {
            let error = DomainOp::from_json(action, body.as_bytes()).expect_err(body);
            assert!(error.to_string().contains(told), "{action} {body}: {error}");
        }
    }
}
