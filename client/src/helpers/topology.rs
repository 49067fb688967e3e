//! Who is connected to whom.

use std::collections::BTreeSet;

use crate::columns::{TextLists, nodes};
use crate::error::ReadError;
use crate::rows::{NodeRef, Rows};
use crate::snapshot::Snapshot;

/// What [`Snapshot::get_network_topology`] answers.
#[derive(Clone, Debug)]
pub struct Topology<'s> {
    /// The nodes.
    pub nodes: Rows<'s, NodeRef<'s>>,
    /// Each connection of two nodes once, the smaller id first, whichever end names it; in order.
    pub connections: Vec<Connection<'s>>,
    /// Connections to peers that are no nodes of the cluster: the source is the node that names the target. In order.
    pub unknown_peers: Vec<Connection<'s>>,
}

/// Two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection<'s> {
    /// The smaller id; of an unknown peer, the node that names it.
    pub source: &'s str,
    /// The larger id, or the unknown peer.
    pub target: &'s str,
}

impl Snapshot {
    /// The nodes and the connections between them. A node that names itself is not connected by that.
    pub fn get_network_topology(&self) -> Result<Topology<'_>, ReadError> {
        let nodes = self.nodes();
        let mut connections = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for chunk in nodes.table().chunks() {
            let chunk = chunk?;
            let peers = TextLists::of(chunk, nodes::PEERS);
            for row in chunk.rows() {
                let id = chunk.keys.value(row);
                for peer in peers.get(row).filter(|peer| *peer != id) {
                    if nodes.table().find_chunk(peer)?.is_none() {
                        unknown.insert(Connection {
                            source: id,
                            target: peer,
                        });
                        continue;
                    }
                    connections.insert(Connection {
                        source: id.min(peer),
                        target: id.max(peer),
                    });
                }
            }
        }
        Ok(Topology {
            nodes,
            connections: connections.into_iter().collect(),
            unknown_peers: unknown.into_iter().collect(),
        })
    }
}
