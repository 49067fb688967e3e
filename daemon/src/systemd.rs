//! A word to the service manager, by the sd_notify protocol: one datagram to `$NOTIFY_SOCKET`.
//!
//! Without that variable nobody listens and nothing happens. A word that does not arrive is the
//! service manager's business: it has its own time limit for a start.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// Sends `word`, such as `READY=1`.
pub fn notify(word: &str) {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
        && let Err(error) = send(&socket, word)
    {
        warn!(%error, word, "cannot notify the service manager");
    }
}

fn send(socket: &OsStr, word: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // A leading @ stands for the NUL of an abstract address.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(word.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_arrives_at_a_path_and_at_an_abstract_address() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("notify");
        let name = format!("sherwood-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let listeners = [
            (
                path.clone().into_os_string(),
                UnixDatagram::bind(&path).unwrap(),
            ),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
            ),
        ];
        for (address, listener) in listeners {
            send(&address, "READY=1").unwrap();
            let mut bytes = [0; 32];
            let len = listener.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..len], b"READY=1", "{address:?}");
        }
    }
}
