//! The arrows between the rooms: who may know whom. docs/ARCHITECTURE.md says
//! why.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each room, and what it may name of the crate's rooms and of the libraries
/// that belong to one room only.
const ROOMS: [(&str, &[&str]); 20] = [
    ("domain", &[]),
    ("archive", &["domain", "csv"]),
    ("instrumentation", &["opentelemetry"]),
    ("log_throttle", &[]),
    (
        "store",
        &["domain", "instrumentation", "sqlx", "opentelemetry"],
    ),
    (
        "recent",
        &[
            "domain",
            "instrumentation",
            "log_throttle",
            "redis",
            "opentelemetry",
        ],
    ),
    ("sessions", &["domain", "redis"]),
    (
        "redis",
        &[
            "authorities",
            "instrumentation",
            "log_throttle",
            "fred",
            "rustls",
            "opentelemetry",
        ],
    ),
    (
        "memory",
        &["domain", "store", "recent", "sessions", "opentelemetry"],
    ),
    (
        "rpc",
        &[
            "domain",
            "archive",
            "memory",
            "store",
            "proto",
            "instrumentation",
            "telemetry",
            "access",
            "transport",
            "tonic",
            "prost_types",
            "http",
            "opentelemetry",
            "prost_reflect",
            "tower_http",
        ],
    ),
    // Judges callers by what is known of them, never by what they ask for.
    ("access", &["watched", "http", "governor"]),
    ("watched", &["log_throttle"]),
    ("authorities", &["rustls"]),
    (
        "transport",
        &[
            "access",
            "instrumentation",
            "watched",
            "tonic",
            "rustls",
            "x509_parser",
            "opentelemetry",
        ],
    ),
    // Knows the contract and its descriptors, nothing of what the services do.
    (
        "rpc/rest",
        &[
            "domain",
            "rpc",
            "proto",
            "tonic",
            "http",
            "prost_types",
            "prost_reflect",
        ],
    ),
    (
        "proto",
        &["domain", "tonic", "prost_types", "prost_reflect"],
    ),
    (
        "config",
        &[
            "access",
            "domain",
            "memory",
            "redis",
            "transport",
            "sqlx",
            "clap",
        ],
    ),
    (
        "telemetry",
        &[
            "config",
            "domain",
            "instrumentation",
            "log_throttle",
            "store",
            "recent",
            "sessions",
            "http",
            "opentelemetry",
            "opentelemetry_sdk",
            "prometheus",
            "authorities",
        ],
    ),
    ("shutdown", &[]),
    (
        "app",
        &[
            "access",
            "watched",
            "config",
            "domain",
            "memory",
            "recent",
            "redis",
            "rpc",
            "sessions",
            "shutdown",
            "store",
            "telemetry",
            "transport",
            "tonic",
            "axum",
            "http",
            "opentelemetry",
        ],
    ),
];

/// Libraries that only some rooms may name.
const GUARDED: [&str; 16] = [
    "csv",
    "sqlx",
    "fred",
    "tonic",
    "axum",
    "clap",
    "prost_types",
    "prost_reflect",
    "http",
    "opentelemetry",
    "opentelemetry_sdk",
    "prometheus",
    "rustls",
    "x509_parser",
    "tower_http",
    "governor",
];

#[test]
fn rooms_know_only_whom_they_may() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names: BTreeSet<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (room, may_know) in ROOMS {
        let files = files_of(&source, room);
        assert!(!files.is_empty(), "there is no room {room}");
        for file in files {
            for named in named_in(&fs::read_to_string(&file).unwrap(), &names) {
                if named != room && !may_know.contains(&named.as_str()) {
                    wrong.push(format!("{} names {named}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_is_known() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    for line in library.unwrap().lines() {
        if let Some(module) = line.strip_prefix("pub mod ") {
            let module = module.trim_end_matches(';');
            assert!(
                ROOMS.iter().any(|(room, _)| *room == module),
                "{module} has no arrows"
            );
        }
    }
}

/// The rooms and guarded libraries that a text names.
fn named_in(text: &str, rooms: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    // Whatever follows `crate::`, in braces or not, in imports and in paths.
    for (at, found) in text.match_indices("crate::") {
        let rest = &text[at + found.len()..];
        let imported = match rest.strip_prefix('{') {
            Some(list) => top_level_names(list),
            None => vec![first_word(rest)],
        };
        named.extend(
            imported
                .into_iter()
                .filter(|name| rooms.contains(name.as_str())),
        );
    }
    for library in GUARDED {
        let path = format!("{library}::");
        let begins_a_word = |at: usize| {
            !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        };
        if text.match_indices(&path).any(|(at, _)| begins_a_word(at)) {
            named.insert(library.to_owned());
        }
    }
    named
}

/// The first word of each item of a list that ends with the closing brace.
fn top_level_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_word(&std::mem::take(&mut item))),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    names.push(first_word(&item));
    names
}

fn first_word(text: &str) -> String {
    let word = text.trim_start().chars();
    word.take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The room's file, and all below its folder.
fn files_of(source: &Path, room: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let file = source.join(format!("{room}.rs"));
    if file.exists() {
        files.push(file);
    }
    let mut folders = vec![source.join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files
}
