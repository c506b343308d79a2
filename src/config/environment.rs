//! Environment variables that have no effect, and are logged: those whose names resemble settings, and
//! settings without a value.

use clap::CommandFactory as _;

use super::Args;

/// Names that other programs use for settings of this program.
const OTHER_NAMES: [(&str, &str); 17] = [
    ("AUTH_TOKENS", "AUTH_TOKENS_FILE"),
    ("DATABASE_REPLICA_URL", "DATABASE_READ_URL"),
    ("LANGSMITH_KEY", "LANGSMITH_API_KEY"),
    ("LISTEN_ADDRESS", "LISTEN_ADDR"),
    ("LISTEN_PORT", "LISTEN_ADDR"),
    ("POSTGRES_DATABASE", "POSTGRES_DB"),
    ("POSTGRES_DBNAME", "POSTGRES_DB"),
    ("POSTGRES_HOSTNAME", "POSTGRES_HOST"),
    ("POSTGRES_PASS", "POSTGRES_PASSWORD"),
    ("POSTGRES_URL", "DATABASE_URL"),
    ("POSTGRES_USERNAME", "POSTGRES_USER"),
    ("REDIS_DATABASE", "REDIS_DB"),
    ("REDIS_HOSTNAME", "REDIS_HOST"),
    ("REDIS_PASS", "REDIS_PASSWORD"),
    ("SESSION_TTL", "SESSION_TTL_MINUTES"),
    ("TLS_CERT", "TLS_CERT_FILE"),
    ("TLS_KEY", "TLS_KEY_FILE"),
];

/// Names of other programs that only resemble settings.
const UNRELATED_NAMES: [&str; 2] = ["SSL_CERT_DIR", "SSL_CERT_FILE"];

/// Length from which two letters may differ instead of one.
const LONG: usize = 9;

/// Variable that is not a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelled {
    /// Name of the variable.
    pub found: String,
    /// Setting that it resembles, which is not set.
    pub setting: String,
}

/// Returns the variables of the process whose names resemble those of `settings`.
pub(super) fn misspelled(settings: &[String]) -> Vec<Misspelled> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    resembling(&names.collect::<Vec<_>>(), settings)
}

/// Returns the `settings` that are variables of the process without a value, which count as not set.
pub(super) fn empty(settings: &[String]) -> Vec<String> {
    let settings = settings.iter();
    settings
        .filter(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
        .cloned()
        .collect()
}

/// Returns the variables that are settings.
pub(super) fn settings() -> Vec<String> {
    let command = Args::command();
    let names = command.get_arguments().filter_map(|arg| arg.get_env());
    names
        .filter_map(|name| name.to_str().map(str::to_owned))
        .collect()
}

fn resembling(names: &[String], settings: &[String]) -> Vec<Misspelled> {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let is_set = |setting: &str| names.iter().any(|name| name == setting);
    let unknown = names.iter().map(String::as_str);
    let unknown = unknown.filter(|it| !settings.contains(it) && !UNRELATED_NAMES.contains(it));
    unknown
        .filter_map(|name| {
            let other = OTHER_NAMES.iter().find(|(other, _)| *other == name);
            let setting = match other {
                Some((_, setting)) => *setting,
                None => settings.iter().copied().find(|it| are_similar(it, name))?,
            };
            (!is_set(setting)).then(|| Misspelled {
                found: name.to_owned(),
                setting: setting.to_owned(),
            })
        })
        .collect()
}

/// Whether two names differ by few inserted, removed, replaced or exchanged letters.
fn are_similar(one: &str, other: &str) -> bool {
    let limit = if one.len() < LONG { 1 } else { 2 };
    one.len().abs_diff(other.len()) <= limit && distance(one.as_bytes(), other.as_bytes()) <= limit
}

/// Returns the number of letters to insert, remove, replace or exchange with the next one.
fn distance(one: &[u8], other: &[u8]) -> usize {
    // Distances of the beginnings of `one` and `other`, for the last two beginnings of `one`.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, compared) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != compared);
            let mut least = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            let is_exchanged =
                row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *compared;
            if is_exchanged {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Vec<(String, String)> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let found = resembling(&names, &settings()).into_iter();
        found.map(|it| (it.found, it.setting)).collect()
    }

    #[test]
    fn misspelled_names_are_found() {
        for (name, setting) in [
            ("REDIS_ULR", "REDIS_URL"),
            ("DATABSE_URL", "DATABASE_URL"),
            ("POSTGRESS_HOST", "POSTGRES_HOST"),
            ("LISTEN_ADRR", "LISTEN_ADDR"),
            ("SESSION_TTL_MINUTE", "SESSION_TTL_MINUTES"),
            ("POSTGRES_DATABASE", "POSTGRES_DB"),
            ("AUTH_TOKENS", "AUTH_TOKENS_FILE"),
        ] {
            assert_eq!(found(&[name]), [(name.to_owned(), setting.to_owned())]);
        }
    }

    #[test]
    fn other_variables_are_not_found() {
        let others = [
            "HOME",
            "PATH",
            "HOSTNAME",
            "LISTEN_FDS",
            "SSL_CERT_FILE",
            "REDIS_PORT_6379_TCP",
            "REDIS_SERVICE_HOST",
            "POSTGRES_SERVICE_PORT",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            // Another setting is misspelled only if it is not set.
            "DATABASE_URL",
            "DATABASE_URL_2",
            "REDIS_URLS",
            "REDIS_URL",
        ];
        assert_eq!(found(&others), []);
    }
}
