//! What workers, masters and agents do, as one call each, on both writers.

use serde_json::{Map, Value};
use sherwood_shared::transaction::DomainOp;

use super::aio::AsyncWriter;
use super::blocking::Writer;
use super::error::WriteError;
use super::outcome::{Done, Outcome};

/// What a claim's outcome means to its caller.
fn claimed(outcome: Outcome) -> Result<Option<String>, WriteError> {
    let Done { task, .. } = outcome.done()?;
    Ok(task)
}

fn texts<S: AsRef<str>>(texts: &[S]) -> Vec<String> {
    texts.iter().map(|text| text.as_ref().to_owned()).collect()
}

macro_rules! operations {
    ($writer:ident, $async:tt, $await:tt) => {
        impl $writer {
            operations!{@all $async $await
                /// Gives a pending task to a node that is online.
                assign(task: &str, node: &str) => DomainOp::Assign { task: task.into(), node: node.into() };
                /// An assigned task runs.
                start(task: &str) => DomainOp::Start { task: task.into() };
                /// An assigned or running task is done, and made these outputs.
                complete(task: &str, outputs: &[impl AsRef<str>]) => DomainOp::Complete {
                    task: task.into(),
                    outputs: texts(outputs),
                };
                /// An assigned or running task went wrong.
                fail(task: &str, reason: Option<&str>) => DomainOp::Fail {
                    task: task.into(),
                    reason: reason.map(str::to_owned),
                };
                /// An assigned or running task is pending again.
                release(task: &str) => DomainOp::Release { task: task.into() };
                /// An open task is not wanted any more.
                cancel(task: &str) => DomainOp::Cancel { task: task.into() };
                /// A failed task is pending again.
                retry(task: &str) => DomainOp::Retry { task: task.into() };
                /// A node joins, or comes again.
                register(node: impl Into<Map<String, Value>>) => DomainOp::Register { row: node.into() };
                /// A node lives; `set` is what changed of it, such as its resources.
                heartbeat(node: &str, set: Map<String, Value>) => DomainOp::Heartbeat { node: node.into(), set };
                /// A node leaves.
                remove_node(node: &str) => DomainOp::RemoveNode { node: node.into() };
                /// Content is there.
                add_content(content: impl Into<Map<String, Value>>) => DomainOp::AddContent { row: content.into() };
                /// Content is to be kept.
                pin(cid: &str) => DomainOp::Pin { cid: cid.into() };
                /// Content need not be kept.
                unpin(cid: &str) => DomainOp::Unpin { cid: cid.into() };
                /// Content is gone.
                remove_content(cid: &str) => DomainOp::RemoveContent { cid: cid.into() };
                /// A node has a copy of content.
                add_provider(cid: &str, node: &str) => DomainOp::AddProvider { cid: cid.into(), node: node.into() };
                /// A node has no copy of content any more.
                drop_provider(cid: &str, node: &str) => DomainOp::DropProvider { cid: cid.into(), node: node.into() };
            }

            operations!{@claim $async $await}
        }
    };
    (@claim ($($async:ident)?) ($($await:tt)*)) => {
        /// Takes the oldest pending task that fits the node, of one of these types or of any if there are none.
        /// `None`: there is no such task now.
        ///
        /// # Errors
        ///
        /// [`WriteError::Refused`] (no such node, say), [`WriteError::Unknown`], and those of `apply`.
        pub $($async)? fn claim<S: AsRef<str>>(&self, node: &str, types: &[S]) -> Result<Option<String>, WriteError> {
            let (node, types) = (node.into(), texts(types));
            claimed(self.apply(DomainOp::Claim { node, types })$($await)*?)
        }
    };
    (@all $async:tt $await:tt $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $op:expr;)*) => {
        $(operations!{@method $async $await $(#[$doc])* $name($($argument: $type),*) => $op})*
    };
    (@method ($($async:ident)?) ($($await:tt)*) $(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $op:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// As `apply`; a rule that forbids it is [`Outcome::Refused`].
        pub $($async)? fn $name(&self, $($argument: $type),*) -> Result<Outcome, WriteError> {
            self.apply($op)$($await)*
        }
    };
}

operations!(AsyncWriter, (async), (.await));
operations!(Writer, (), ());
