//! Who may call.
//!
//! A caller is judged by what is known of its connection and by what it sends along, and
//! by nothing that it asks for: a refusal is the same whatever it is about. What it is
//! called may be shown; what it proved that with is not kept.

mod name;
mod peer;

use http::HeaderMap;

pub use self::{
    name::Name,
    peer::{Peer, UnixAllowed},
};

/// Who calls, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller(Option<Name>);

impl Caller {
    /// What it is called; None for those of whom nothing is known.
    pub fn name(&self) -> Option<&Name> {
        self.0.as_ref()
    }
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is known, and not on the list.
    Forbidden,
}

/// The rules.
#[derive(Debug)]
pub struct Access {
    unix_allowed: UnixAllowed,
}

impl Access {
    /// Lets processes on Unix sockets in as it is said.
    pub fn new(unix_allowed: UnixAllowed) -> Self {
        Self { unix_allowed }
    }

    /// Who calls, if it may.
    pub fn judge(&self, peer: &Peer, _headers: &HeaderMap) -> Result<Caller, Refusal> {
        match peer {
            Peer::Unix(process) if !self.unix_allowed.is_empty() => match process {
                Some(process) if self.unix_allowed.has(*process) => {
                    Ok(Caller(Some(Name::of_user(process.uid()))))
                }
                _ => Err(Refusal::Forbidden),
            },
            Peer::Unix(process) => Ok(Caller(process.map(|process| Name::of_user(process.uid())))),
            Peer::Tcp => Ok(Caller(None)),
        }
    }
}
