use std::{fmt, path::Path};

use fred::types::config::{Config, Server, ServerConfig, TlsConnector};

use crate::authorities::{CaFileError, client_config};

const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
];

/// Addresses and credentials of Redis.
#[derive(Clone)]
pub struct RedisTarget(pub(super) Config);

impl RedisTarget {
    /// Parses `redis://`, `redis-cluster://` or `redis-sentinel://`, or the
    /// same with `rediss` for TLS, which trusts the public certificate authorities.
    ///
    /// The form is `redis://[[username:]password@]host[:port][/database]`. Further
    /// nodes of a cluster, or sentinels, are given as
    /// `?node=host:port&node=host:port`; sentinels need `sentinelServiceName=name`.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidRedisUrl`], which does not quote the URL.
    pub fn from_url(url: &str) -> Result<Self, InvalidRedisUrl> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(InvalidRedisUrl::Form);
        }
        // For a URL with TLS the library would load the machine's authorities.
        let plain = match url.strip_prefix("rediss") {
            Some(rest) => format!("redis{rest}"),
            None => url.to_owned(),
        };
        // The library's error can quote the URL, which can contain a password.
        let mut config = Config::from_url(&plain).map_err(|_| {
            let is_nameless =
                scheme.ends_with("-sentinel") && !url.contains("sentinelServiceName=");
            if is_nameless {
                InvalidRedisUrl::NoServiceName
            } else {
                InvalidRedisUrl::Form
            }
        })?;
        if scheme.starts_with("rediss") {
            let tls = client_config(None).map_err(|_| InvalidRedisUrl::Form)?;
            config.tls = Some(TlsConnector::from(tls).into());
        }
        match &config.server {
            ServerConfig::Sentinel { service_name, .. } if service_name.is_empty() => {
                Err(InvalidRedisUrl::NoServiceName)
            }
            server if server.hosts().iter().any(|host| host.host.is_empty()) => {
                Err(InvalidRedisUrl::Form)
            }
            _ => Ok(Self(config)),
        }
    }

    /// Trusts the certificate authorities in a PEM file as well, if TLS is used.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or contains no certificate.
    pub fn with_ca_file(mut self, file: &Path) -> Result<Self, CaFileError> {
        let tls = TlsConnector::from(client_config(Some(file))?);
        self.0.tls = self.0.tls.map(|_| tls.into());
        Ok(self)
    }

    /// Whether connections use TLS.
    pub fn uses_tls(&self) -> bool {
        self.0.uses_tls()
    }

    /// Creates the target of a single server, without TLS.
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

    /// Returns the host and port of a single server. `None` for clusters and sentinels, where
    /// the server of a call is not known in advance.
    pub(super) fn single_server(&self) -> Option<(&str, u16)> {
        match &self.0.server {
            ServerConfig::Centralized { server } => Some((&server.host, server.port)),
            _ => None,
        }
    }

    /// Returns the number of the database. `None` for clusters, which have only one.
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

/// Error for a URL that does not identify a Redis. Its text does not quote the
/// URL, which can contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    /// It has another form.
    #[error(
        "must be a URL such as redis://default:password@host:6379/0 (or rediss://, redis-cluster://, \
         redis-sentinel://…?sentinelServiceName=name)"
    )]
    Form,
    /// It names sentinels, and no master.
    #[error("must name the master of the sentinels: redis-sentinel://…?sentinelServiceName=name")]
    NoServiceName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_urls_of_every_scheme() {
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
        assert_eq!(target.single_server(), Some(("localhost", 6380)));
        assert_eq!(target.database(), Some(3));
        let named = RedisTarget::from_url("redis://:rediss@rediss:6380/3").unwrap();
        assert_eq!(named.single_server(), Some(("rediss", 6380)));
        assert_eq!(named.0.password.as_deref(), Some("rediss"));
        assert!(
            RedisTarget::from_url("rediss://localhost")
                .unwrap()
                .uses_tls()
        );
    }

    #[test]
    fn clusters_and_sentinels_have_no_single_server() {
        let cluster = RedisTarget::from_url("redis-cluster://localhost:7000").unwrap();
        assert_eq!((cluster.single_server(), cluster.database()), (None, None));
        let sentinel = "redis-sentinel://localhost:26379/1?sentinelServiceName=main";
        let sentinel = RedisTarget::from_url(sentinel).unwrap();
        assert_eq!(
            (sentinel.single_server(), sentinel.database()),
            (None, Some(1))
        );
    }

    #[test]
    fn sentinels_need_the_name_of_their_master() {
        for url in [
            "redis-sentinel://localhost:26379",
            "rediss-sentinel://localhost:26379?node=other:26379",
            "redis-sentinel://localhost:26379?sentinelServiceName=",
        ] {
            let error = RedisTarget::from_url(url).unwrap_err();
            assert_eq!(error, InvalidRedisUrl::NoServiceName, "{url}");
        }
        let no_port = "redis-sentinel://localhost:none?sentinelServiceName=main";
        assert_eq!(
            RedisTarget::from_url(no_port).unwrap_err(),
            InvalidRedisUrl::Form
        );
    }

    #[test]
    fn errors_and_debug_output_contain_no_password() {
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
