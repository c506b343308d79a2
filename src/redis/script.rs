use std::{borrow::Cow, fmt, fmt::Write as _};

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use super::RedisError;

/// Lua script that accesses one key, so that a cluster can route it.
#[derive(Clone)]
pub struct Script {
    name: &'static str,
    source: Cow<'static, str>,
    sha1: String,
}

impl Script {
    /// Creates a script and computes its digest. `name` identifies it in spans
    /// and metrics.
    pub fn new(name: &'static str, source: impl Into<Cow<'static, str>>) -> Self {
        let source = source.into();
        let mut sha1 = String::with_capacity(40);
        for byte in Sha1::digest(source.as_bytes()) {
            // Writing into a String cannot fail.
            let _ = write!(sha1, "{byte:02x}");
        }
        Self { name, source, sha1 }
    }

    /// Name of the script in spans and metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Source text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// SHA-1 digest of the source in hexadecimal, by which EVALSHA finds it.
    pub fn sha1(&self) -> &str {
        &self.sha1
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.name).finish()
    }
}

/// Value that a script returned.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// Lua's `nil` or `false`.
    Nil,
    /// Integer.
    Integer(i64),
    /// String.
    Bytes(Bytes),
    /// Array.
    List(Vec<Reply>),
}

impl Reply {
    /// Returns a string as text.
    ///
    /// # Errors
    ///
    /// Fails with [`RedisError::UnexpectedReply`] unless the reply is a string in UTF-8.
    pub fn text(&self) -> Result<&str, RedisError> {
        match self {
            Self::Bytes(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| RedisError::UnexpectedReply)
            }
            _ => Err(RedisError::UnexpectedReply),
        }
    }

    /// Returns an integer, or a string that contains one.
    ///
    /// # Errors
    ///
    /// Fails with [`RedisError::UnexpectedReply`] for any other reply.
    pub fn integer(&self) -> Result<i64, RedisError> {
        match self {
            Self::Integer(number) => Ok(*number),
            other => other
                .text()?
                .parse()
                .map_err(|_| RedisError::UnexpectedReply),
        }
    }

    /// Returns the elements of an array.
    ///
    /// # Errors
    ///
    /// Fails with [`RedisError::UnexpectedReply`] unless the reply is an array.
    pub fn list(self) -> Result<Vec<Self>, RedisError> {
        match self {
            Self::List(list) => Ok(list),
            _ => Err(RedisError::UnexpectedReply),
        }
    }

    /// Whether the script returned `nil`.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }
}

impl fmt::Debug for Reply {
    /// Writes types and lengths only, because the values are private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("Nil"),
            Self::Integer(_) => f.write_str("Integer"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::List(list) => f.debug_list().entries(list).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_equals_that_of_redis() {
        assert_eq!(
            Script::new("one", "return 1").sha1(),
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }

    #[test]
    fn debug_output_contains_no_values() {
        let reply = Reply::List(vec![
            Reply::Nil,
            Reply::Bytes(Bytes::from_static(b"secret")),
        ]);
        assert_eq!(format!("{reply:?}"), "[Nil, Bytes(6)]");
    }
}
