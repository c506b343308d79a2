use tokio::net::unix::UCred;

use super::CallerName;

/// Identity of the process at the other end of a connection, as the operating system reports it.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A peer over TCP.
    Tcp(TcpPeer),
    /// A peer over a Unix socket: the process that connected. `None` if the kernel does not
    /// report it.
    Unix(Option<Process>),
}

/// Peer over TCP.
#[derive(Clone, Debug)]
pub struct TcpPeer {
    /// Name in its certificate. `None` if it has not presented one, or the certificate has no
    /// name.
    pub name: Option<CallerName>,
    /// Whether it has connected to a loopback address, which only this machine can reach. Its
    /// requests may come from a page in a browser.
    pub is_on_loopback: bool,
}

/// User and group of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    uid: u32,
    gid: u32,
}

impl Peer {
    /// Creates the peer of a Unix socket with these credentials.
    pub fn from_credentials(credentials: Option<UCred>) -> Self {
        Self::Unix(credentials.map(|process| Process {
            uid: process.uid(),
            gid: process.gid(),
        }))
    }
}

impl Process {
    pub(super) fn uid(self) -> u32 {
        self.uid
    }
}

/// Processes that may call over a Unix socket. If both lists are empty, every process that
/// can open the socket may.
#[derive(Clone, Debug, Default)]
pub struct UnixAllowList {
    /// Users whose processes may call.
    pub uids: Vec<u32>,
    /// Groups whose processes may call. Only the primary group of a process counts, because the
    /// kernel does not report the others.
    pub gids: Vec<u32>,
}

impl UnixAllowList {
    /// Whether both lists are empty.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    pub(super) fn contains(&self, process: Process) -> bool {
        self.uids.contains(&process.uid) || self.gids.contains(&process.gid)
    }
}
