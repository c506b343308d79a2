//! Environment variables whose names resemble those of settings. They are ignored like all unknown
//! ones, and logged.

use clap::CommandFactory as _;

use super::Args;

/// Names that other programs use for settings of this program.
const OTHER_NAMES: [(&str, &str); 7] = [
    ("DATABASE_REPLICA_URL", "DATABASE_READ_URL"),
    ("LISTEN_ADDRESS", "LISTEN_ADDR"),
    ("POSTGRES_DATABASE", "POSTGRES_DB"),
    ("POSTGRES_URL", "DATABASE_URL"),
    ("POSTGRES_USERNAME", "POSTGRES_USER"),
    ("REDIS_DATABASE", "REDIS_DB"),
    ("REDIS_PASS", "REDIS_PASSWORD"),
];

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

/// Returns the variables of the process whose names resemble those of settings.
pub(super) fn find() -> Vec<Misspelled> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    resembling(&names.collect::<Vec<_>>())
}

fn resembling(names: &[String]) -> Vec<Misspelled> {
    let command = Args::command();
    let settings = command.get_arguments().filter_map(|arg| arg.get_env());
    let settings: Vec<&str> = settings.filter_map(|name| name.to_str()).collect();
    let is_set = |setting: &str| names.iter().any(|name| name == setting);
    let unknown = names.iter().filter(|name| !settings.contains(&&***name));
    unknown
        .filter_map(|name| {
            let other = OTHER_NAMES.iter().find(|(other, _)| other == name);
            let setting = match other {
                Some((_, setting)) => *setting,
                None => settings.iter().copied().find(|it| are_similar(it, name))?,
            };
            (!is_set(setting)).then(|| Misspelled {
                found: name.clone(),
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
        let found = resembling(&names).into_iter();
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
