use tokio::net::unix::UCred;

use super::Name;

/// What is known of the other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Over TCP: what its certificate calls it, if it had to show one.
    Tcp(Option<Name>),
    /// Over a Unix socket: its process when it connected, if the kernel could say.
    Unix(Option<Process>),
}

/// A process, by whom it runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    uid: u32,
    gid: u32,
}

impl Peer {
    /// The process that the kernel names.
    pub fn of_process(process: Option<UCred>) -> Self {
        Self::Unix(process.map(|process| Process {
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

/// Which processes may call over a Unix socket. With neither list all that can open it.
#[derive(Clone, Debug, Default)]
pub struct UnixAllowed {
    /// Those of these users.
    pub uids: Vec<u32>,
    /// And those of these groups: a process's primary one, the kernel names no other.
    pub gids: Vec<u32>,
}

impl UnixAllowed {
    /// Whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    pub(super) fn has(&self, process: Process) -> bool {
        self.uids.contains(&process.uid) || self.gids.contains(&process.gid)
    }
}
