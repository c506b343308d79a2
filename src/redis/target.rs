use std::{fmt, path::Path};

use fred::types::config::{Config, Server, ServerConfig, TlsConnector};

use crate::authorities::{BadAuthorities, tls_trusting};

const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
];

/// Where Redis is and how to log in.
#[derive(Clone)]
pub struct RedisTarget(pub(super) Config);

impl RedisTarget {
    /// Reads `redis://`, `redis-cluster://` or `redis-sentinel://`, with
    /// `rediss` in its place for TLS, which trusts the public authorities.
    ///
    /// `redis://[[username:]password@]host[:port][/database]`; further nodes of a
    /// cluster or sentinels as `?node=host:port&node=host:port`; for sentinels
    /// `&sentinelServiceName=name`.
    pub fn from_url(url: &str) -> Result<Self, BadRedisUrl> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(BadRedisUrl);
        }
        // For a URL with TLS the library would look for this machine's authorities.
        let plain = match url.strip_prefix("rediss") {
            Some(rest) => format!("redis{rest}"),
            None => url.to_owned(),
        };
        // The library's error can quote the URL, which can hold a password.
        let mut config = Config::from_url(&plain).map_err(|_| BadRedisUrl)?;
        if scheme.starts_with("rediss") {
            let tls = tls_trusting(None).map_err(|_| BadRedisUrl)?;
            config.tls = Some(TlsConnector::from(tls).into());
        }
        match &config.server {
            ServerConfig::Sentinel { service_name, .. } if service_name.is_empty() => {
                Err(BadRedisUrl)
            }
            server if server.hosts().iter().any(|host| host.host.is_empty()) => Err(BadRedisUrl),
            _ => Ok(Self(config)),
        }
    }

    /// The same, trusting the authorities of a file in PEM as well, where there is TLS.
    pub fn trusting(mut self, file: &Path) -> Result<Self, BadAuthorities> {
        let tls = TlsConnector::from(tls_trusting(Some(file))?);
        self.0.tls = self.0.tls.map(|_| tls.into());
        Ok(self)
    }

    /// Whether what is said to it is encrypted.
    pub fn uses_tls(&self) -> bool {
        self.0.uses_tls()
    }

    /// One server.
    pub fn new(host: &str, port: u16, password: Option<String>, database: Option<u8>) -> Self {
        Self(Config {
            server: ServerConfig::Centralized {
                server: Server::new(host, port),
            },
            password,
            database,
            ..Config::default()
        })
    }

    /// The one server's host and port. None where a cluster or a sentinel
    /// chooses the server.
    pub(super) fn server(&self) -> Option<(&str, u16)> {
        match &self.0.server {
            ServerConfig::Centralized { server } => Some((&server.host, server.port)),
            _ => None,
        }
    }

    /// The number of the database. None where there is but one, in a cluster.
    pub(super) fn database(&self) -> Option<u8> {
        match self.0.server {
            ServerConfig::Clustered { .. } => None,
            _ => Some(self.0.database.unwrap_or(0)),
        }
    }
}

impl fmt::Display for RedisTarget {
    /// Writes the configured servers as `host:port`, separated by commas, and
    /// no credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.0.server.hosts().into_iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            if server.host.contains(':') {
                write!(f, "[{}]:{}", server.host, server.port)?;
            } else {
                write!(f, "{server}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisTarget({self})")
    }
}

/// A URL that names no Redis. It does not quote the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a URL such as redis://default:password@host:6379/0 (or rediss://, redis-cluster://, \
     redis-sentinel://…?sentinelServiceName=name)"
)]
pub struct BadRedisUrl;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_url_is_read() {
        for url in [
            "redis://localhost",
            "redis://:pass%20word@localhost:6380/3",
            "rediss://user:password@localhost:6380",
            "redis-cluster://localhost:7000?node=localhost:7001",
            "redis-sentinel://localhost:26379/1?sentinelServiceName=main&node=other:26379",
        ] {
            assert!(RedisTarget::from_url(url).is_ok(), "{url}");
        }
        let target = RedisTarget::from_url("redis://:pass%20word@localhost:6380/3").unwrap();
        assert_eq!(target.0.password.as_deref(), Some("pass word"));
        assert_eq!(target.0.database, Some(3));
        assert_eq!(target.server(), Some(("localhost", 6380)));
        assert_eq!(target.database(), Some(3));
        let named = RedisTarget::from_url("redis://:rediss@rediss:6380/3").unwrap();
        assert_eq!(named.server(), Some(("rediss", 6380)));
        assert_eq!(named.0.password.as_deref(), Some("rediss"));
        assert!(
            RedisTarget::from_url("rediss://localhost")
                .unwrap()
                .uses_tls()
        );
    }

    #[test]
    fn a_server_that_is_chosen_elsewhere_is_not_named() {
        let cluster = RedisTarget::from_url("redis-cluster://localhost:7000").unwrap();
        assert_eq!((cluster.server(), cluster.database()), (None, None));
        let sentinel = "redis-sentinel://localhost:26379/1?sentinelServiceName=main";
        let sentinel = RedisTarget::from_url(sentinel).unwrap();
        assert_eq!((sentinel.server(), sentinel.database()), (None, Some(1)));
    }

    #[test]
    fn no_error_and_no_debug_shows_a_password() {
        for url in [
            "",
            "localhost:6379",
            "http://:hunter2@localhost",
            "redis://:hunter2@",
            "redis://:hunter2@local host",
            "redis://:hunter2@localhost:99999",
            "redis://:hunter2@localhost/notanumber",
            "redis-sentinel://:hunter2@localhost",
        ] {
            let error = RedisTarget::from_url(url).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
        let target = RedisTarget::from_url("redis://me:hunter2@localhost").unwrap();
        assert_eq!(format!("{target:?}"), "RedisTarget(localhost:6379)");
    }

    #[test]
    fn display_lists_the_configured_servers() {
        let shown = |url| RedisTarget::from_url(url).unwrap().to_string();
        assert_eq!(shown("redis://me:hunter2@localhost"), "localhost:6379");
        assert_eq!(
            shown("redis-cluster://:hunter2@a:7000?node=b:7001"),
            "b:7001, a:7000"
        );
        assert_eq!(
            RedisTarget::new("::1", 6379, None, None).to_string(),
            "[::1]:6379"
        );
    }
}
