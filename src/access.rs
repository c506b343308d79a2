//! Who may call.
//!
//! A caller is judged by what is known of its connection and by what it sends along, and
//! by nothing that it asks for: a refusal is the same whatever it is about. What it is
//! called may be shown; what it proved that with is not kept.

mod name;
mod peer;
mod rate;
mod tokens;

use std::{num::NonZeroU32, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};

use self::rate::Rate;
pub use self::{
    name::Name,
    peer::{Peer, UnixAllowed},
    tokens::Tokens,
};
use crate::watched::Watched;

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
pub enum AccessDenied {
    /// It sent no token that is taken.
    Unauthenticated,
    /// It is known, and not on the list.
    Forbidden,
}

/// The rules.
///
/// A process on a Unix socket for which there is a list is let in by it, or not at all.
/// Everybody else needs a token, where there are tokens: a certificate, which the handshake
/// has checked, does not stand in for one.
#[derive(Debug)]
pub struct Access {
    unix_allowed: UnixAllowed,
    tokens: Option<Watched<Tokens>>,
    rate: Option<Rate>,
}

impl Access {
    /// Lets processes on Unix sockets in as it is said, and others who have a token; all
    /// others if there are none. Each may make `max_rate` calls a second; all of whom
    /// nothing is known are one caller.
    pub fn new(
        unix_allowed: UnixAllowed,
        tokens: Option<Watched<Tokens>>,
        max_rate: Option<NonZeroU32>,
    ) -> Self {
        Self {
            unix_allowed,
            tokens,
            rate: max_rate.map(Rate::new),
        }
    }

    /// Who calls, if it may.
    pub fn judge(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, AccessDenied> {
        let name = match peer {
            Peer::Unix(process) if !self.unix_allowed.is_empty() => {
                let allowed = process.filter(|process| self.unix_allowed.has(*process));
                let process = allowed.ok_or(AccessDenied::Forbidden)?;
                return Ok(Caller(Some(Name::of_user(process.uid()))));
            }
            Peer::Unix(process) => process.map(|process| Name::of_user(process.uid())),
            Peer::Tcp(certificate) => certificate.clone(),
        };
        let Some(tokens) = &self.tokens else {
            return Ok(Caller(name));
        };
        let sent = bearer(headers).ok_or(AccessDenied::Unauthenticated)?;
        let tokens = tokens.current();
        let holder = tokens.holder(sent).ok_or(AccessDenied::Unauthenticated)?;
        Ok(Caller(Some(holder.clone())))
    }

    /// Counts a call of a caller's. Beyond its rate: after which time it may try again.
    pub fn count(&self, caller: &Caller) -> Result<(), Duration> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.take(caller))
    }
}

/// The token that was sent: of two, nobody could say which one is meant.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    let token = token.trim_ascii();
    (is_bearer && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_follows_its_scheme() {
        let sent = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(<[u8]>::to_vec)
        };
        for value in ["Bearer abc", "bearer abc", "BEARER   abc"] {
            assert_eq!(sent(&[value]).unwrap(), b"abc", "{value}");
        }
        for value in ["abc", "Basic abc", "Bearer", "Bearer ", "Bearerabc", ""] {
            assert_eq!(sent(&[value]), None, "{value}");
        }
        assert_eq!(sent(&[]), None);
        assert_eq!(sent(&["Bearer abc", "Bearer abc"]), None);
    }
}
