//! Validation shared by the settings of PostgreSQL and Redis.

use super::InvalidSetting;

/// Rejects a URL in which an unencoded character seems to end the password: the rest of the
/// password would be parsed as a host or a database, and would be logged.
pub(super) fn check_encoding(url: &str, name: &str) -> Result<(), InvalidSetting> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let first_key = query.split('=').next().unwrap_or_default();
    let is_cut_off = !authority.contains('@')
        && authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.bytes().all(|byte| byte.is_ascii_digit()));
    let query_has_authority = first_key.contains('@') || (is_cut_off && query.contains('@'));
    if !fragment.is_empty() || path.contains('@') || query_has_authority {
        return Err(InvalidSetting::secret(
            name,
            "the characters / ? # and @ in the password must be percent-encoded",
        ));
    }
    Ok(())
}

/// Parses a port. Kubernetes sets `POSTGRES_PORT` and `REDIS_PORT` to a value such as
/// `tcp://10.0.0.11:6379` in every pod of a namespace with a Service of that name; such a
/// value counts as unset.
pub(super) fn port(text: Option<&str>, default: u16, name: &str) -> Result<u16, InvalidSetting> {
    match text {
        None | Some("") => Ok(default),
        Some(text) if text.starts_with("tcp://") => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| InvalidSetting::value(name, text, "must be a port from 1 to 65535")),
    }
}
