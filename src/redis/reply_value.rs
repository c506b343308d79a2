//! Conversion of the library's results.

use fred::{
    error::{Error, ErrorKind},
    types::Value,
};

use super::{ErrorReply, RedisError, Reply, cause};

/// Distinguishes error replies from failures of the connection.
pub(super) fn classify(error: &Error) -> RedisError {
    match error.kind() {
        ErrorKind::Timeout
        | ErrorKind::IO
        | ErrorKind::Canceled
        | ErrorKind::Routing
        | ErrorKind::Protocol => return RedisError::NoReply,
        // Too many calls wait to be sent.
        ErrorKind::Backpressure => return RedisError::Unavailable,
        ErrorKind::Parse => return RedisError::UnexpectedReply,
        _ => {}
    }
    RedisError::ErrorReply(match cause::error_code(error) {
        "" => return RedisError::NoReply,
        "OOM" => ErrorReply::OutOfMemory,
        "READONLY" => ErrorReply::ReadOnly,
        "LOADING" => ErrorReply::Loading,
        "MASTERDOWN" => ErrorReply::MasterDown,
        "CLUSTERDOWN" => ErrorReply::ClusterDown,
        "MISCONF" => ErrorReply::NotPersistent,
        "NOREPLICAS" => ErrorReply::TooFewReplicas,
        "WRONGTYPE" => ErrorReply::WrongType,
        "NOSCRIPT" => ErrorReply::UnknownScript,
        "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorReply::NotAuthorized,
        _ => within_script(error.details()),
    })
}

/// Returns the error of a command in a script. Redis describes a missing permission in words. Before
/// version 7 it quotes other errors: `ERR Error running script (…): -OOM command not allowed …`.
fn within_script(details: &str) -> ErrorReply {
    let quotes = |code: &str| details.contains(&format!(" -{code} "));
    if quotes("OOM") {
        ErrorReply::OutOfMemory
    } else if quotes("READONLY") {
        ErrorReply::ReadOnly
    } else if quotes("MISCONF") {
        ErrorReply::NotPersistent
    } else if quotes("NOREPLICAS") {
        ErrorReply::TooFewReplicas
    } else if quotes("NOPERM") || details.contains("user executing the script") {
        ErrorReply::NotAuthorized
    } else {
        ErrorReply::Other
    }
}

/// Converts a value that a script returned.
pub(super) fn reply(value: Value) -> Result<Reply, RedisError> {
    Ok(match value {
        Value::Null => Reply::Nil,
        Value::Integer(number) => Reply::Integer(number),
        Value::String(text) => Reply::Bytes(text.into_inner()),
        Value::Bytes(bytes) => Reply::Bytes(bytes),
        Value::Array(values) => {
            Reply::List(values.into_iter().map(reply).collect::<Result<_, _>>()?)
        }
        _ => return Err(RedisError::UnexpectedReply),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &'static str) -> RedisError {
        classify(&Error::new(ErrorKind::Unknown, text))
    }

    #[test]
    fn error_replies_are_distinguished_from_connection_failures() {
        assert_eq!(
            reply("OOM command not allowed when used memory > 'maxmemory'."),
            RedisError::ErrorReply(ErrorReply::OutOfMemory)
        );
        assert_eq!(
            reply("ERR user_script:1: secret"),
            RedisError::ErrorReply(ErrorReply::Other)
        );
        assert_eq!(reply("Client is not initialized."), RedisError::NoReply);
        assert_eq!(
            classify(&Error::new(ErrorKind::Timeout, "Request timed out.")),
            RedisError::NoReply
        );
    }

    #[test]
    fn errors_of_commands_in_scripts_are_recognized() {
        let quoted = "ERR Error running script (call to f_1): @user_script:12: @user_script: 12: \
                      -OOM command not allowed when used memory > 'maxmemory'. ";
        assert_eq!(
            reply(quoted),
            RedisError::ErrorReply(ErrorReply::OutOfMemory)
        );
        let denied = "ERR The user executing the script can't run this command or subcommand \
                      script: db8d8f6383e1a67ce23db65efd679a334c123806, on @user_script:1.";
        assert_eq!(
            reply(denied),
            RedisError::ErrorReply(ErrorReply::NotAuthorized)
        );
    }
}
