use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use http::{HeaderMap, HeaderValue, Uri, header::HOST};

use super::{Excerpt, Peer, TcpPeer};

/// Name or IP address of a host, without a port, in lower case and without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(Host<Box<str>>);

/// Error of a text that is not a [`HostName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be host names or IP addresses without a port, such as memory.example.com or ::1")]
pub struct InvalidHostName;

/// Host of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host<N> {
    Ip(IpAddr),
    Name(N),
}

/// Reason for which a request is refused by its host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedHost {
    /// The request names no host.
    #[error("the request names no host")]
    Missing,
    /// The request has several host headers.
    #[error("the request has several host headers")]
    Several,
    /// The host is not allowed.
    #[error("the host {0} is not allowed")]
    NotAllowed(Excerpt),
}

/// Rule about the names by which callers may address this server.
///
/// A page in a browser can make its own name resolve to a loopback address, and is then allowed
/// to read the responses of a server there. The browser sends the page's name as the host, so
/// that requests for other names than those of loopback are rejected.
#[derive(Clone, Debug)]
pub struct HostPolicy {
    allowed: Vec<HostName>,
    covers_all_tcp: bool,
}

impl HostPolicy {
    /// Creates the rule of the API: over loopback, the names of loopback and those in `allowed`
    /// are accepted. If `allowed` is not empty, the rule applies to all TCP connections.
    pub fn of_api(allowed: Vec<HostName>) -> Self {
        Self {
            covers_all_tcp: !allowed.is_empty(),
            allowed,
        }
    }

    /// Creates the rule of the operations port, which applies to loopback only: probes and
    /// scrapers address a pod by its IP address.
    pub fn of_operations(allowed: Vec<HostName>) -> Self {
        Self {
            covers_all_tcp: false,
            allowed,
        }
    }

    /// Checks whether a request of `peer` may be served. If the rule applies to the peer, each host
    /// that the request names must be allowed, and it must name one.
    ///
    /// # Errors
    /// Fails with the first host that is not allowed.
    pub fn check(
        &self,
        peer: Option<&Peer>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), RefusedHost> {
        let is_covered = match peer {
            Some(Peer::Unix(_)) => false,
            Some(Peer::Tcp(TcpPeer { is_on_loopback, .. })) => {
                *is_on_loopback || self.covers_all_tcp
            }
            None => true,
        };
        if !is_covered {
            return Ok(());
        }
        let mut header = headers.get_all(HOST).iter();
        let (first, second) = (header.next(), header.next());
        if second.is_some() {
            return Err(RefusedHost::Several);
        }
        // HTTP/2 has the host in the URI, and so has HTTP/1.1 if the request's target is a URL.
        let in_uri = uri.authority().map(http::uri::Authority::as_str);
        let in_header = first.map(HeaderValue::as_bytes);
        let named = [in_uri.map(str::as_bytes), in_header];
        let mut named = named.into_iter().flatten().peekable();
        if named.peek().is_none() {
            return Err(RefusedHost::Missing);
        }
        let refused = named.find(|host| !str::from_utf8(host).is_ok_and(|host| self.allows(host)));
        refused.map_or(Ok(()), |host| {
            Err(RefusedHost::NotAllowed(Excerpt::of(host)))
        })
    }

    /// Whether the host of an authority, `host` or `host:port`, is allowed.
    fn allows(&self, authority: &str) -> bool {
        let Some(host) = parse_authority(authority) else {
            return false;
        };
        host.is_loopback() || self.allowed.iter().any(|allowed| allowed.is(host))
    }
}

impl Host<&str> {
    fn is_loopback(self) -> bool {
        match self {
            Self::Ip(ip) => ip.to_canonical().is_loopback(),
            Self::Name(name) => {
                // Browsers and resolvers do not look these names up elsewhere.
                let top = name.rsplit('.').next().unwrap_or_default();
                top.eq_ignore_ascii_case("localhost")
            }
        }
    }
}

impl HostName {
    fn is(&self, host: Host<&str>) -> bool {
        match (&self.0, host) {
            (Host::Ip(own), Host::Ip(other)) => *own == other,
            (Host::Name(own), Host::Name(other)) => own.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let text = text.trim();
        let ip: Option<Ipv6Addr> = text.parse().ok();
        let host = match ip {
            Some(ip) => Host::Ip(ip.into()),
            None => match parse_host(text).ok_or(InvalidHostName)? {
                Host::Ip(ip) => Host::Ip(ip),
                Host::Name(name) => Host::Name(name.to_ascii_lowercase().into()),
            },
        };
        Ok(Self(host))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// Whether a text is `host`, `host:port` or `[address]:port`.
pub(super) fn is_authority(text: &str) -> bool {
    parse_authority(text).is_some()
}

/// Returns the host of `host`, `host:port` or `[address]:port`. `None` if the text has another
/// form: what other programs would make of it is not known.
fn parse_authority(text: &str) -> Option<Host<&str>> {
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at_checked(end)?;
    let is_port = |port: &str| {
        let has_digits_only = port.bytes().all(|byte| byte.is_ascii_digit());
        port.is_empty() || (has_digits_only && port.parse::<u16>().is_ok())
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return None;
    }
    parse_host(host)
}

fn parse_host(text: &str) -> Option<Host<&str>> {
    const MAX_LENGTH: usize = 253;
    if let Some(ip) = text.strip_prefix('[') {
        let ip: Ipv6Addr = ip.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Ip(ip.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if let Ok(ip) = name.parse::<Ipv4Addr>() {
        return Some(Host::Ip(ip.into()));
    }
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.bytes().all(is_allowed)
    };
    let is_name = name.len() <= MAX_LENGTH && name.split('.').all(is_label);
    is_name.then_some(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: [&str; 16] = [
        "localhost",
        "LocalHost",
        "localhost.",
        "localhost:50051",
        "LOCALHOST.:50051",
        "localhost:",
        "a.localhost",
        "a.b.Localhost.:1",
        "127.0.0.1",
        "127.0.0.1:50051",
        "127.0.0.1.:50051",
        "127.255.255.254",
        "[::1]",
        "[::1]:50051",
        "[0:0:0:0:0:0:0:1]:1",
        "[::ffff:127.0.0.1]:1",
    ];

    const FOREIGN: [&str; 36] = [
        "",
        ".",
        ":50051",
        "evil.example",
        "evil.example:50051",
        "localhost.evil.example",
        "localhost.evil.example:50051",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1",
        "evil.example@localhost",
        "localhost@evil.example:1",
        "localhost/evil.example",
        "localhost\\evil.example",
        "localhost#evil.example",
        "localhost?evil.example",
        "localhost:50051:50051",
        "localhost:abc",
        "localhost:-1",
        "localhost:123456",
        "localhost evil.example",
        " localhost",
        "localhost,evil.example",
        "localhost..",
        "..localhost",
        "0.0.0.0",
        "0.0.0.0:50051",
        "126.255.255.255",
        "128.0.0.1",
        "[::]",
        "[::2]:1",
        "[::1",
        "::1",
        "[::1%25lo]:1",
    ];

    fn peer(is_on_loopback: bool) -> Peer {
        Peer::Tcp(TcpPeer {
            name: None,
            is_on_loopback,
        })
    }

    fn headers(hosts: &[&str]) -> HeaderMap {
        let values = hosts.iter().map(|host| (HOST, host.parse().unwrap()));
        values.collect()
    }

    #[test]
    fn names_of_loopback_are_allowed() {
        let policy = HostPolicy::of_api(Vec::new());
        let uri = Uri::from_static("/");
        for host in LOOPBACK {
            let headers = headers(&[host]);
            assert!(
                policy.check(Some(&peer(true)), &uri, &headers).is_ok(),
                "{host}"
            );
        }
    }

    #[test]
    fn other_names_are_rejected_on_loopback() {
        let policy = HostPolicy::of_api(Vec::new());
        let uri = Uri::from_static("/");
        for host in FOREIGN {
            let headers = headers(&[host]);
            assert!(
                policy.check(Some(&peer(true)), &uri, &headers).is_err(),
                "{host}"
            );
            assert!(
                policy.check(Some(&peer(false)), &uri, &headers).is_ok(),
                "{host}"
            );
            let unix = Peer::Unix(None);
            assert!(policy.check(Some(&unix), &uri, &headers).is_ok(), "{host}");
        }
        for invalid in [&[][..], &["localhost", "localhost"], &["localhost", "a"]] {
            let headers = headers(invalid);
            assert!(policy.check(Some(&peer(true)), &uri, &headers).is_err());
        }
        let no_text: HeaderMap = [(HOST, http::HeaderValue::from_bytes(b"localhost\xff"))]
            .map(|(name, value)| (name, value.unwrap()))
            .into_iter()
            .collect();
        assert!(policy.check(Some(&peer(true)), &uri, &no_text).is_err());
        assert!(
            policy
                .check(None, &uri, &headers(&["evil.example"]))
                .is_err()
        );
    }

    #[test]
    fn the_host_of_the_uri_and_the_header_must_both_be_allowed() {
        let policy = HostPolicy::of_api(Vec::new());
        let admits = |uri: &str, hosts: &[&str]| {
            let uri = uri.parse().unwrap();
            policy
                .check(Some(&peer(true)), &uri, &headers(hosts))
                .is_ok()
        };
        assert!(admits("http://localhost:1/x", &[]));
        assert!(admits("http://localhost:1/x", &["127.0.0.1"]));
        assert!(!admits("http://evil.example/x", &["localhost"]));
        assert!(!admits("http://localhost/x", &["evil.example"]));
        assert!(!admits("http://user@localhost/x", &[]));
    }

    #[test]
    fn allowed_hosts_are_added_and_apply_to_all_tcp_connections() {
        let allowed = [
            "Memory.Example.com",
            "10.0.0.7",
            "fd00::7",
            " [::2] ",
            "a_b.",
        ];
        let allowed: Vec<HostName> = allowed.map(|host| host.parse().unwrap()).into();
        let api = HostPolicy::of_api(allowed.clone());
        let operations = HostPolicy::of_operations(allowed);
        let uri = Uri::from_static("/");
        for host in [
            "memory.example.com",
            "MEMORY.example.com.:443",
            "10.0.0.7:50051",
            "[fd00::7]:1",
            "[::2]",
            "a_b:1",
            "localhost",
        ] {
            for is_on_loopback in [true, false] {
                let headers = headers(&[host]);
                let peer = peer(is_on_loopback);
                assert!(api.check(Some(&peer), &uri, &headers).is_ok(), "{host}");
                assert!(
                    operations.check(Some(&peer), &uri, &headers).is_ok(),
                    "{host}"
                );
            }
        }
        for host in ["example.com", "a.memory.example.com", "10.0.0.8", "evil"] {
            let headers = headers(&[host]);
            assert!(
                api.check(Some(&peer(false)), &uri, &headers).is_err(),
                "{host}"
            );
            assert!(
                api.check(Some(&peer(true)), &uri, &headers).is_err(),
                "{host}"
            );
            assert!(operations.check(Some(&peer(true)), &uri, &headers).is_err());
            assert!(operations.check(Some(&peer(false)), &uri, &headers).is_ok());
        }
    }

    #[test]
    fn rejects_texts_that_are_no_host() {
        for invalid in [
            "", "*", "*.a", "a:1", "http://a", "a/b", "[::1]:1", "a b", "é",
        ] {
            assert_eq!(
                invalid.parse::<HostName>(),
                Err(InvalidHostName),
                "{invalid}"
            );
        }
        assert_eq!("A.b.".parse::<HostName>().unwrap().to_string(), "a.b");
    }
}
