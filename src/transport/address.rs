use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At an address and port of this machine.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an address such as 127.0.0.1:50051, [::1]:50051 or unix:/run/memory.sock")]
pub struct BadAddress;

impl Address {
    /// Whether others than this machine's processes can reach it.
    pub fn is_exposed(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Reads `address:port`, or a path as gRPC's names have it: `unix:path` and
    /// `unix:///path`.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| BadAddress);
        };
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            // What follows would be another machine's name.
            Some(_) => return Err(BadAddress),
            None => path,
        };
        if path.is_empty() || path.ends_with('/') || path.contains('\0') {
            return Err(BadAddress);
        }
        Ok(Self::Unix(path.into()))
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
    fn addresses_are_read_as_they_are_shown() {
        for text in ["127.0.0.1:50051", "[::1]:0", "unix:/run/memory.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let path = "unix:///run/memory.sock".parse::<Address>().unwrap();
        assert_eq!(path.to_string(), "unix:/run/memory.sock");
        let relative = "unix:memory.sock".parse::<Address>().unwrap();
        assert_eq!(relative, Address::Unix("memory.sock".into()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "here",
            "localhost:1",
            "127.0.0.1",
            ":50051",
            "unix:",
            "unix:/run/",
            "unix://host/run/memory.sock",
            "/run/memory.sock",
        ] {
            assert_eq!(bad.parse::<Address>(), Err(BadAddress), "{bad}");
        }
    }

    #[test]
    fn what_others_can_reach_is_exposed() {
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
