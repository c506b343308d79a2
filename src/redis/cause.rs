//! Describes the cause of an outage for the log.
//!
//! fred keeps the text of an error instead of the error: for I/O and TLS the output of `Debug`.
//! Only the recognized parts of that text are logged. A reply of Redis is reduced to its error
//! code, because a reply can quote a command, and one of the commands contains the password.

use std::io;

use fred::error::{Error, ErrorKind};

/// Cause if the configured server is a sentinel.
pub(super) const IS_SENTINEL: &str = "the configured server is a sentinel; REDIS_URL must begin with \
                                      redis-sentinel:// and contain sentinelServiceName";

const CLUSTER_DOWN: &str = "the cluster is down, or does not serve all slots (CLUSTERDOWN)";

/// Describes why Redis cannot be used.
pub(super) fn describe(error: &Error) -> String {
    let details = error.details();
    match error.kind() {
        ErrorKind::IO => io_error(details)
            .or_else(|| sentence(details))
            .unwrap_or_else(|| "the connection failed".to_owned()),
        ErrorKind::Tls => format!("TLS handshake failed: {}", variant_path(details)),
        ErrorKind::Timeout => "no reply in time".to_owned(),
        ErrorKind::Canceled => "the connection was closed".to_owned(),
        // The library asks for the state when it connects.
        ErrorKind::Protocol if details.contains("cluster state") => CLUSTER_DOWN.to_owned(),
        ErrorKind::Protocol => "the reply is not in the Redis protocol".to_owned(),
        kind => match error_code(error) {
            "ERR" => known_reply(details)
                .unwrap_or("Redis replied ERR")
                .to_owned(),
            "CLUSTERDOWN" => CLUSTER_DOWN.to_owned(),
            "" if *kind == ErrorKind::Sentinel => {
                // I/O errors of connections to sentinels arrive as this kind.
                io_error(details)
                    .unwrap_or_else(|| "no sentinel returned the address of the master".to_owned())
            }
            "" if *kind == ErrorKind::Cluster => "no node of the cluster is usable".to_owned(),
            "" => "the connection failed".to_owned(),
            code @ ("NOAUTH" | "WRONGPASS") => format!("Redis rejected the credentials ({code})"),
            "NOPERM" => {
                let permission = denied_command(error);
                let permission = permission.as_deref().unwrap_or("of a key");
                format!("the user lacks the permission {permission} (NOPERM)")
            }
            code @ "LOADING" => format!("Redis is loading its data ({code})"),
            code => format!("Redis replied {code}"),
        },
    }
}

/// Describes a reply with the general error code, if it is one that a wrong setting causes.
fn known_reply(details: &str) -> Option<&'static str> {
    const NO_DATABASE: &str =
        "the server has no database of this number; REDIS_URL or REDIS_DB must name another one";
    const REPLIES: [(&str, &str); 6] = [
        // Sentinels have no databases.
        ("ERR unknown command 'SELECT'", IS_SENTINEL),
        ("ERR unknown command `SELECT`", IS_SENTINEL),
        ("ERR DB index is out of range", NO_DATABASE),
        ("ERR invalid DB index", NO_DATABASE),
        (
            "ERR SELECT is not allowed in cluster mode",
            "a cluster has only database 0; REDIS_URL or REDIS_DB must not name another one",
        ),
        (
            "ERR This instance has cluster support disabled",
            "the server is not a node of a cluster; REDIS_URL must begin with redis or rediss, without \
             -cluster",
        ),
    ];
    let known = REPLIES.iter().find(|(reply, _)| details.starts_with(reply));
    known.map(|(_, description)| *description)
}

/// Returns the error code that a reply of Redis starts with, such as `WRONGPASS`. Empty for
/// errors that are not replies.
pub(super) fn error_code(error: &Error) -> &str {
    let word = error.details().split_whitespace().next().unwrap_or("");
    let is_code = word.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_code { word } else { "" }
}

/// Returns the permission of the command that a reply with the code `NOPERM` names, as `ACL SETUSER`
/// expects it. `None` if the permission of a key is missing.
pub(super) fn denied_command(error: &Error) -> Option<String> {
    // The name of the user comes first, and can contain anything.
    let (_, command) = error.details().rsplit_once("run the '")?;
    let (name, _) = command.split_once('\'')?;
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || b"|-_".contains(&byte));
    is_name.then(|| format!("+{name}"))
}

/// Returns the message of the [`io::Error`] whose `Debug` output is `details`.
fn io_error(details: &str) -> Option<String> {
    if let Some(rest) = details.strip_prefix("Os { code: ") {
        let code = rest.split(',').next()?.parse().ok()?;
        return Some(io::Error::from_raw_os_error(code).to_string());
    }
    if details.starts_with("Custom { ") {
        let (_, inner) = details.split_once(" error: ")?;
        return match inner.strip_prefix('"') {
            Some(text) => text.split('"').next().map(str::to_owned),
            None => Some(format!("TLS handshake failed: {}", variant_path(inner))),
        };
    }
    details.strip_prefix("Kind(").map(variant_path)
}

/// Returns the text if it is a sentence of fred and not the output of `Debug`.
fn sentence(details: &str) -> Option<String> {
    let is_sentence = details
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || " .,'-".contains(c));
    (is_sentence && !details.is_empty()).then(|| details.trim_end_matches('.').to_owned())
}

/// Returns the names of the nested enum variants that a `Debug` output starts with:
/// `InvalidCertificate(UnknownIssuer)` becomes `InvalidCertificate: UnknownIssuer`.
fn variant_path(debug: &str) -> String {
    let mut names = Vec::new();
    let mut rest = debug;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        if name.is_empty() {
            break;
        }
        names.push(name);
        match after.strip_prefix('(') {
            Some(inner) => rest = inner,
            None => break,
        }
    }
    names.join(": ")
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError};

    use super::*;

    fn described(error: io::Error) -> String {
        describe(&Error::from(error))
    }

    #[test]
    fn io_errors_are_described_as_display_describes_them() {
        let refused = || io::Error::from_raw_os_error(111);
        assert_eq!(described(refused()), refused().to_string());
        let unresolved = "failed to lookup address information: Name or service not known";
        assert_eq!(described(io::Error::other(unresolved)), unresolved);
        assert_eq!(
            described(io::ErrorKind::UnexpectedEof.into()),
            "UnexpectedEof"
        );
        let closed = Error::new(ErrorKind::IO, "Connection closed.");
        assert_eq!(describe(&closed), "Connection closed");
        let unknown = Error::new(ErrorKind::IO, "Future { unknown: form }");
        assert_eq!(describe(&unknown), "the connection failed");
    }

    #[test]
    fn tls_errors_are_described_by_the_names_of_their_variants() {
        let custom = |error| described(io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(
            custom(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer
            )),
            "TLS handshake failed: InvalidCertificate: UnknownIssuer"
        );
        assert_eq!(
            custom(rustls::Error::AlertReceived(AlertDescription::UnknownCA)),
            "TLS handshake failed: AlertReceived: UnknownCA"
        );
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        assert_eq!(
            describe(&Error::from(expired)),
            "TLS handshake failed: InvalidCertificate: Expired"
        );
    }

    #[test]
    fn replies_are_reduced_to_their_error_code() {
        let reply = |text: &'static str| describe(&Error::new(ErrorKind::Unknown, text));
        assert_eq!(
            reply("ERR unknown command 'AUTH', with args: 'hunter2'"),
            "Redis replied ERR"
        );
        let rejected = Error::new(ErrorKind::Auth, "WRONGPASS invalid username-password pair");
        assert_eq!(
            describe(&rejected),
            "Redis rejected the credentials (WRONGPASS)"
        );
        let database = reply("ERR DB index is out of range");
        assert!(database.contains("REDIS_DB"), "{database}");
        assert_eq!(reply("hunter2 is wrong"), "the connection failed");
    }

    #[test]
    fn errors_of_sentinels_keep_their_cause() {
        let mut error = Error::from(io::Error::from_raw_os_error(111));
        error.change_kind(ErrorKind::Sentinel);
        assert!(describe(&error).starts_with("Connection refused"));
        let unknown = Error::new(ErrorKind::Sentinel, "hunter2");
        assert_eq!(
            describe(&unknown),
            "no sentinel returned the address of the master"
        );
    }
}
