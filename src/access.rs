//! Authentication of callers, and the limit on the rate of their calls.
//!
//! A caller is authenticated by its connection and its token, and not by the content of its
//! request: a rejection is the same for every request. The name of a caller may appear in logs
//! and spans; its token is not stored. Requests that pages in a browser may have sent are
//! rejected by their host and their origin.

mod caller_name;
mod excerpt;
mod host;
mod operator;
mod peer;
mod rate;
mod tokens;
mod web_origin;

use std::num::NonZeroU32;

use http::{HeaderMap, header::AUTHORIZATION};

use self::rate::CallerRate;
pub use self::{
    caller_name::CallerName,
    excerpt::Excerpt,
    host::{HostName, HostPolicy, InvalidHostName, RefusedHost},
    operator::{InvalidOperator, Operator},
    peer::{Peer, Process, TcpPeer, UnixAllowList},
    rate::RateExceeded,
    tokens::Tokens,
    web_origin::{CrossSitePolicy, InvalidWebOrigin, RefusedOrigin, WebOrigin},
};
use crate::reload::Reloaded;

/// Caller of a request: authenticated, or anonymous if no authentication is configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    name: Option<CallerName>,
    is_operator: bool,
}

impl Caller {
    /// Name of the caller; `None` for anonymous callers.
    pub fn name(&self) -> Option<&CallerName> {
        self.name.as_ref()
    }

    /// Whether the caller may also call the methods for operators.
    pub fn is_operator(&self) -> bool {
        self.is_operator
    }
}

/// Reason for which a caller is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessDenied {
    /// The caller has sent no valid token.
    Unauthenticated,
    /// The caller's process is not on the list of processes that may call.
    Forbidden,
}

/// Rules by which callers are authenticated and limited.
///
/// If there is a list of processes for Unix sockets, it alone decides for a caller on such a
/// socket. Every other caller needs a token if there are tokens. A certificate, which the
/// TLS handshake has verified, does not replace a token.
#[derive(Debug)]
pub struct AccessPolicy {
    unix_allow_list: UnixAllowList,
    tokens: Option<Reloaded<Tokens>>,
    operators: Vec<Operator>,
    rate: Option<CallerRate>,
}

impl AccessPolicy {
    /// Creates the rules. If `tokens` is `None`, callers need no token. `operators` are the callers
    /// that may call the methods for operators. Each caller may make `max_rate` calls per second;
    /// all anonymous callers count as one caller.
    pub fn new(
        unix_allow_list: UnixAllowList,
        tokens: Option<Reloaded<Tokens>>,
        operators: Vec<Operator>,
        max_rate: Option<NonZeroU32>,
    ) -> Self {
        Self {
            unix_allow_list,
            tokens,
            operators,
            rate: max_rate.map(CallerRate::new),
        }
    }

    /// Authenticates the caller of a request.
    ///
    /// # Errors
    /// Fails if the caller is rejected.
    pub fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Result<Caller, AccessDenied> {
        let name = self.caller_name(peer, headers)?;
        let mut operators = self.operators.iter();
        let is_operator = operators.any(|operator| operator.includes(name.as_ref()));
        Ok(Caller { name, is_operator })
    }

    fn caller_name(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Option<CallerName>, AccessDenied> {
        let name = match peer {
            Peer::Unix(process) if !self.unix_allow_list.is_empty() => {
                let allowed = process.filter(|process| self.unix_allow_list.contains(*process));
                let process = allowed.ok_or(AccessDenied::Forbidden)?;
                return Ok(Some(CallerName::from_uid(process.uid())));
            }
            Peer::Unix(process) => process.map(|process| CallerName::from_uid(process.uid())),
            Peer::Tcp(peer) => peer.name.clone(),
        };
        let Some(tokens) = &self.tokens else {
            return Ok(name);
        };
        let token = bearer_token(headers).ok_or(AccessDenied::Unauthenticated)?;
        let tokens = tokens.current();
        let owner = tokens.owner(token).ok_or(AccessDenied::Unauthenticated)?;
        Ok(Some(owner.clone()))
    }

    /// Counts a call of `caller`.
    ///
    /// # Errors
    /// Fails if the caller has exceeded its rate.
    pub fn check_rate(&self, caller: &Caller) -> Result<(), RateExceeded> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.check(caller))
    }
}

/// Returns the bearer token of a request. `None` if there is none, or more than one, since it
/// is not defined which of them is valid.
fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
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
    fn reads_the_token_after_the_scheme() {
        let token = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer_token(&headers).map(<[u8]>::to_vec)
        };
        for value in ["Bearer abc", "bearer abc", "BEARER   abc"] {
            assert_eq!(token(&[value]).unwrap(), b"abc", "{value}");
        }
        for value in ["abc", "Basic abc", "Bearer", "Bearer ", "Bearerabc", ""] {
            assert_eq!(token(&[value]), None, "{value}");
        }
        assert_eq!(token(&[]), None);
        assert_eq!(token(&["Bearer abc", "Bearer abc"]), None);
    }
}
