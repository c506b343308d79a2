//! Permissions that the user of Redis needs.

use bytes::Bytes;
use fred::{error::Error, types::Value};
use futures_util::future::join_all;

use super::{Reply, Script, cause, connection::Connection, reply_value::reply};

/// Patterns of the keys of this program without the configured prefix, each with a key that does not
/// exist.
const KEYS: [(&str, &str); 4] = [
    ("history:*", "history:permissions"),
    ("session:*", "session:permissions"),
    ("user:*", "user:permissions"),
    ("write-probe", "write-probe"),
];

/// Returns the permissions of scripts that the user lacks, as `ACL SETUSER` expects them: `+hset`,
/// `~session:*`. Empty if Redis does not reply.
pub(super) async fn missing(connection: &Connection, prefix: &str) -> Vec<String> {
    let script = Script::new("permissions", include_str!("permissions.lua"));
    let source = Bytes::from(script.source().to_owned());
    let digest = Bytes::from(script.sha1().to_owned());
    let mut missing = Vec::new();
    // The second one must be permitted too, and can succeed only after the first one.
    for (command, body) in [("EVAL", source), ("EVALSHA", digest)] {
        let calls = KEYS.map(|(pattern, key)| {
            let body = body.clone();
            async move {
                let key = format!("{prefix}{key}");
                let result = connection.evaluate(command, body, &key).await;
                lacking(result, || format!("~{prefix}{pattern}"))
            }
        });
        missing.extend(join_all(calls).await.into_iter().flatten());
    }
    missing.sort();
    missing.dedup();
    missing
}

/// Returns the permissions that a call of the script has reported as missing.
fn lacking(result: Result<Value, Error>, of_key: impl Fn() -> String) -> Vec<String> {
    match result {
        Ok(denied) => {
            let denied = reply(denied).and_then(Reply::list);
            let names = denied.unwrap_or_default().into_iter();
            names
                .filter_map(|name| Some(format!("+{}", name.text().ok()?.to_lowercase())))
                .collect()
        }
        Err(error) if cause::error_code(&error) == "NOPERM" => {
            vec![cause::denied_command(&error).unwrap_or_else(of_key)]
        }
        // Calls report that Redis does not reply, or that it does not know the script.
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use fred::error::ErrorKind;

    use super::*;

    /// Adds the commands that the scripts in a folder execute.
    fn collect(folder: &Path, commands: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, commands);
            } else if path.extension().is_some_and(|name| name == "lua") {
                let source = fs::read_to_string(&path).unwrap();
                for call in source.split("call(\"").skip(1) {
                    commands.insert(call.split('"').next().unwrap().to_owned());
                }
            }
        }
    }

    #[test]
    fn every_command_of_a_script_is_checked() {
        let mut used = BTreeSet::new();
        collect(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut used,
        );
        assert!(used.contains("HGETALL"), "{used:?}");
        let script = include_str!("permissions.lua");
        let checks = script.lines().filter_map(|line| {
            let name = line.strip_prefix("check(\"")?.split('"').next()?;
            Some(name.to_owned())
        });
        assert_eq!(checks.collect::<BTreeSet<_>>(), used);
    }

    #[test]
    fn missing_permissions_are_named_for_every_version_of_redis() {
        let of = |text: &'static str| {
            let error = Error::new(ErrorKind::Unknown, text);
            lacking(Err(error), || "~session:*".to_owned())
        };
        for (text, expected) in [
            (
                "NOPERM this user has no permissions to run the 'eval' command or its subcommand",
                "+eval",
            ),
            (
                "NOPERM User 'run the 'x has no permissions to run the 'evalsha' command",
                "+evalsha",
            ),
            (
                "NOPERM this user has no permissions to access one of the keys used as arguments",
                "~session:*",
            ),
            ("NOPERM No permissions to access a key", "~session:*"),
        ] {
            assert_eq!(of(text), [expected], "{text}");
        }
        assert_eq!(of("NOSCRIPT No matching script."), [""; 0]);
        let denied = Value::Array(vec![Value::from_static_str("HSET")]);
        assert_eq!(lacking(Ok(denied), String::new), ["+hset"]);
    }
}
