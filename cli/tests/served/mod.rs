//! A state that is published in this process, with a stub in place of its daemon's socket.

#![allow(dead_code)] // each test program uses its own part

use serde_json::Value;
use sherwood_daemon::publish::Publisher;

use crate::common::{self, Host};
use crate::stub::Stub;

/// A state that is served, and a socket beside its snapshot.
pub struct Served {
    pub host: Host,
    pub stub: Stub,
    _publisher: Publisher,
}

impl Served {
    pub fn new() -> Self {
        let host = Host::new();
        let state = host.sample("state");
        let publisher = host.publish(&state, "run");
        let stub = Stub::start(&host.path("run").join("sample.sock"));
        stub.seen().cluster = Some("sample".to_owned());
        Self {
            host,
            stub,
            _publisher: publisher,
        }
    }

    pub fn run(&self, args: &[&str]) -> common::Ran {
        self.host.run(&[&["--run-dir", "run"], args].concat())
    }

    /// The only request that came, without its id if that was made up.
    pub fn request(&self) -> Value {
        let requests = std::mem::take(&mut self.stub.seen().requests);
        let [request] = &requests[..] else {
            panic!("{requests:?}");
        };
        let mut request = request.clone();
        let object = request.as_object_mut().expect("an object");
        if object["id"].as_str().is_some_and(|id| id.len() == 36) {
            object.shift_remove("id");
        }
        request
    }
}
