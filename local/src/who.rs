//! Who is at the other end of a Unix socket, as the kernel says.

use nix::unistd::geteuid;
use tokio::net::UnixStream;

/// A user and his group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Nobody has this number: what the kernel does not know may do nothing.
const NOBODY: u32 = u32::MAX;

impl Who {
    pub(crate) fn of(stream: &UnixStream) -> Who {
        match stream.peer_cred() {
            Ok(peer) => Who { uid: peer.uid(), gid: peer.gid() },
            Err(_) => Who { uid: NOBODY, gid: NOBODY },
        }
    }

    /// Whether it is root, or the user as whom the node runs.
    pub(crate) fn is_own(self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }
}
