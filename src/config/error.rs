use std::{error::Error as _, fmt};

use clap::{
    CommandFactory as _,
    builder::ValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Args;

/// Error of an invalid setting. Its text is one line that names the variable, the valid values
/// and, unless it may contain a secret, the value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSetting(String);

impl InvalidSetting {
    /// Creates the error of a value, and shows the value.
    pub(super) fn value(name: &str, value: &str, expected: impl fmt::Display) -> Self {
        Self(format!("invalid value {value:?} for {name}: {expected}"))
    }

    /// Creates the error of a value without showing it, because it is or may contain a secret.
    pub(super) fn secret(name: &str, expected: impl fmt::Display) -> Self {
        Self(format!("invalid value for {name}: {expected}"))
    }

    /// Creates the error of a setting that is missing, or whose file cannot be used.
    pub(super) fn new(name: &str, problem: impl fmt::Display) -> Self {
        Self(format!("{name}: {problem}"))
    }

    /// Names the environment variable where clap names the flag. Usage errors, such as an
    /// unknown flag, keep the first line of clap's message.
    pub(super) fn from_clap(error: &clap::Error) -> Self {
        let value = match error.get(ContextKind::InvalidValue) {
            Some(ContextValue::String(value)) => value,
            _ => "",
        };
        let expected = match error.kind() {
            ErrorKind::ValueValidation => error.source().map(ToString::to_string),
            ErrorKind::InvalidValue if !value.is_empty() => valid_values(error),
            _ => None,
        };
        match (variable(error), expected) {
            (Some(name), Some(expected)) => Self::value(&name, value, expected),
            _ if error.kind() == ErrorKind::InvalidUtf8 => match variable_without_utf8() {
                Some(name) => Self::secret(&name, "must be UTF-8"),
                None => Self(first_line(error)),
            },
            _ => Self(first_line(error)),
        }
    }
}

/// Returns the environment variable of the argument that caused an error.
fn variable(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    // Shown with a placeholder for its value: `--max-connections <NUMBER>`.
    let flag = shown.split([' ', '=', '[']).next()?.strip_prefix("--")?;
    let command = Args::command();
    let arg = command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(flag))?;
    Some(arg.get_env()?.to_string_lossy().into_owned())
}

/// Returns the environment variable that must be UTF-8 and is not. clap does not name it.
fn variable_without_utf8() -> Option<String> {
    let command = Args::command();
    let path = ValueParser::path_buf().type_id();
    let mut arguments = command
        .get_arguments()
        .filter(|arg| arg.get_value_parser().type_id() != path);
    arguments.find_map(|arg| {
        let name = arg.get_env()?;
        std::env::var_os(name)?.to_str().is_none().then_some(())?;
        name.to_str().map(ToOwned::to_owned)
    })
}

fn valid_values(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => match values.as_slice() {
            [] => None,
            [only] => Some(format!("must be {only}")),
            [others @ .., last] => Some(format!("must be {} or {last}", others.join(", "))),
        },
        _ => None,
    }
}

/// Returns the first line of clap's message, which names the problem, and what it lists below that line.
/// The others repeat the usage.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default();
    let listed: Vec<_> = lines.take_while(|line| line.starts_with("  ")).collect();
    let line = line.trim_start_matches("error: ");
    match listed.as_slice() {
        [] => line.to_owned(),
        listed => format!(
            "{line} {}",
            listed.concat().trim_start().replace("  ", ", ")
        ),
    }
}
