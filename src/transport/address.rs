use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// Address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address of this machine and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Error of a text that is not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address such as 127.0.0.1:50051, [::1]:50051 or unix:/run/memory.sock")]
pub struct InvalidAddress;

impl Address {
    /// Whether processes on other machines can reach the address.
    pub fn is_exposed(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Parses `address:port`, where `localhost` is 127.0.0.1, or a path in the forms of gRPC's naming, `unix:path` and
    /// `unix:///path`.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return parse_tcp(text).map(Self::Tcp).ok_or(InvalidAddress);
        };
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            // The text after `//` would be the name of another machine.
            Some(_) => return Err(InvalidAddress),
            None => path,
        };
        if path.is_empty() || path.ends_with('/') || path.contains('\0') {
            return Err(InvalidAddress);
        }
        Ok(Self::Unix(path.into()))
    }
}

/// Parses the IP address and port of a listener. `localhost` is 127.0.0.1, which it names on every
/// machine.
pub fn parse_tcp(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_displays() {
        for text in ["127.0.0.1:50051", "[::1]:0", "unix:/run/memory.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let path = "unix:///run/memory.sock".parse::<Address>().unwrap();
        assert_eq!(path.to_string(), "unix:/run/memory.sock");
        let relative = "unix:memory.sock".parse::<Address>().unwrap();
        assert_eq!(relative, Address::Unix("memory.sock".into()));
    }

    #[test]
    fn localhost_is_the_loopback_address() {
        let address = "localhost:50051".parse::<Address>().unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:50051");
    }

    #[test]
    fn rejects_other_texts() {
        for invalid in [
            "",
            "here",
            "localhost",
            "localhost:",
            "localhost:65536",
            "example.com:1",
            "127.0.0.1",
            ":50051",
            "unix:",
            "unix:/run/",
            "unix://host/run/memory.sock",
            "/run/memory.sock",
        ] {
            assert_eq!(invalid.parse::<Address>(), Err(InvalidAddress), "{invalid}");
        }
    }

    #[test]
    fn addresses_beyond_loopback_are_exposed() {
        for (text, is_exposed) in [
            ("127.0.0.1:1", false),
            ("127.9.9.9:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("unix:/run/memory.sock", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.1:1", true),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_exposed(), is_exposed);
        }
    }
}
