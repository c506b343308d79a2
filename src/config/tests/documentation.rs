//! Compares the settings tables of the documentation with the output of `--help`.

use std::{collections::BTreeMap, fs, path::Path};

use clap::{Arg, ArgAction, CommandFactory as _};

use super::*;

/// Defaults by the name of their setting; `None` for a setting without default.
type Defaults = BTreeMap<String, Option<String>>;

#[test]
fn readme_lists_every_setting_with_its_default() {
    let documented = defaults_in_tables(&read("README.md"));
    let mut differences = differences("README.md", &documented);
    for name in defaults_of_command().keys() {
        if !documented.contains_key(name) {
            differences.push(format!("README.md does not list {name}"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn operations_guide_lists_only_settings_with_their_defaults() {
    let documented = defaults_in_tables(&read("docs/OPERATIONS.md"));
    assert!(!documented.is_empty(), "the guide has no table of settings");
    let differences = differences("docs/OPERATIONS.md", &documented);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn manifests_set_only_existing_settings() {
    let command = defaults_of_command();
    let file = "deploy/kubernetes/component/settings.env";
    for line in read(file).lines().filter(|line| !line.starts_with('#')) {
        let (name, _) = line.split_once('=').unwrap();
        assert!(command.contains_key(name), "{file}: {name} is no setting");
    }
}

fn differences(file: &str, documented: &Defaults) -> Vec<String> {
    let command = defaults_of_command();
    let mut differences = Vec::new();
    for (name, default) in documented {
        match command.get(name) {
            None => differences.push(format!("{file} lists {name}, which is no setting")),
            Some(actual) if actual != default => differences.push(format!(
                "{file} gives {name} the default {default:?}, but --help {actual:?}"
            )),
            Some(_) => {}
        }
    }
    differences
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

fn defaults_of_command() -> Defaults {
    let command = Args::command();
    // Former names of settings are hidden.
    let listed = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let named = listed.filter_map(|arg| {
        let name = arg.get_env()?.to_str().unwrap();
        Some((name.to_owned(), default_of(arg)))
    });
    named.collect()
}

/// The default that the parser applies or, for an optional argument, the one that its help
/// names.
fn default_of(arg: &Arg) -> Option<String> {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Some("false".to_owned());
    }
    let applied = arg.get_default_values().join(",".as_ref());
    if !applied.is_empty() {
        return Some(applied.into_string().unwrap());
    }
    let help = arg.get_long_help().or_else(|| arg.get_help())?.to_string();
    let (_, named) = help.split_once("[default: ")?;
    Some(named.split_once(']')?.0.to_owned())
}

/// The rows of all tables whose first two columns are "Setting" and "Default". A row has one
/// setting; a default is in backticks, and text beside it is a comment.
fn defaults_in_tables(markdown: &str) -> Defaults {
    let mut defaults = Defaults::new();
    let mut is_settings_table = false;
    for line in markdown.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, default, ..] = cells.as_slice() else {
            is_settings_table = false;
            continue;
        };
        if (*name, *default) == ("Setting", "Default") {
            is_settings_table = true;
        } else if is_settings_table && !name.starts_with("---") {
            let name = in_backticks(name).expect(line);
            let previous = defaults.insert(name, in_backticks(default));
            assert!(previous.is_none(), "listed twice: {line}");
        }
    }
    defaults
}

fn in_backticks(cell: &str) -> Option<String> {
    cell.split('`').nth(1).map(ToOwned::to_owned)
}
