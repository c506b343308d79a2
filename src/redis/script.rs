use std::{borrow::Cow, fmt, fmt::Write as _};

use bytes::Bytes;
use sha1::{Digest as _, Sha1};

use super::RedisError;

/// A Lua script on one key, which a cluster can therefore route.
#[derive(Clone)]
pub struct Script {
    name: &'static str,
    source: Cow<'static, str>,
    sha1: String,
}

impl Script {
    /// Takes the source and works out the digest that Redis knows it by. The
    /// name is for people: spans and metrics tell scripts apart by it.
    pub fn new(name: &'static str, source: impl Into<Cow<'static, str>>) -> Self {
        let source = source.into();
        let mut sha1 = String::with_capacity(40);
        for byte in Sha1::digest(source.as_bytes()) {
            // Writing into a String cannot fail.
            let _ = write!(sha1, "{byte:02x}");
        }
        Self { name, source, sha1 }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The digest that Redis knows it by.
    pub fn sha1(&self) -> &str {
        &self.sha1
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.name).finish()
    }
}

/// What a script returned.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A whole number.
    Integer(i64),
    /// A string.
    Bytes(Bytes),
    /// A table.
    List(Vec<Reply>),
}

impl Reply {
    /// The string, as text.
    pub fn text(&self) -> Result<&str, RedisError> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| RedisError::Unexpected),
            _ => Err(RedisError::Unexpected),
        }
    }

    /// The number; also one that is written as a string.
    pub fn integer(&self) -> Result<i64, RedisError> {
        match self {
            Self::Integer(number) => Ok(*number),
            other => other.text()?.parse().map_err(|_| RedisError::Unexpected),
        }
    }

    /// The table's elements.
    pub fn list(self) -> Result<Vec<Self>, RedisError> {
        match self {
            Self::List(list) => Ok(list),
            _ => Err(RedisError::Unexpected),
        }
    }

    /// Whether there is nothing.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }
}

impl fmt::Debug for Reply {
    /// Shows the shape only, because what is kept in Redis is private.
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
    fn a_script_is_named_as_redis_names_it() {
        assert_eq!(
            Script::new("one", "return 1").sha1(),
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }

    #[test]
    fn replies_show_no_values() {
        let reply = Reply::List(vec![
            Reply::Nil,
            Reply::Bytes(Bytes::from_static(b"secret")),
        ]);
        assert_eq!(format!("{reply:?}"), "[Nil, Bytes(6)]");
    }
}
