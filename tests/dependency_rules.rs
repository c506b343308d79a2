//! Dependency rules: which modules of the crate, and which restricted libraries, each module may
//! depend on. docs/ARCHITECTURE.md gives the reasons.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Packages of the workspace that the crate's root re-exports like modules. Their
/// manifests list their dependencies.
const PACKAGES: &[&str] = &["archive", "domain", "text_analysis", "tokens"];

/// Modules, each with the modules and restricted libraries that it may depend on. A folder of a
/// module that has stricter rules is listed by its path.
const MODULES: &[(&str, &[&str])] = &[
    ("instrumentation", &["opentelemetry"]),
    // What spans and log lines contain, as every module may record it.
    ("call", &["domain", "http", "opentelemetry"]),
    ("log_throttle", &[]),
    (
        "rejections",
        &["instrumentation", "log_throttle", "opentelemetry"],
    ),
    ("patience", &[]),
    ("fairness", &[]),
    ("jitter", &[]),
    (
        "store",
        &[
            "os_error",
            "domain",
            "fairness",
            "instrumentation",
            "jitter",
            "log_throttle",
            "patience",
            "text_analysis",
            "sqlx",
            "opentelemetry",
        ],
    ),
    (
        "recent",
        &[
            "domain",
            "instrumentation",
            "log_throttle",
            "proto",
            "redis",
            "opentelemetry",
            "prost_reflect",
        ],
    ),
    ("sessions", &["domain", "patience", "redis", "rejections"]),
    (
        "redis",
        &[
            "authorities",
            "call",
            "instrumentation",
            "log_throttle",
            "patience",
            "fred",
            "rustls",
            "opentelemetry",
        ],
    ),
    (
        "memory",
        &[
            "call", "domain", "fairness", "patience", "store", "recent", "sessions", "tokens",
        ],
    ),
    (
        "rpc",
        &[
            "call",
            "domain",
            "archive",
            "log_throttle",
            "rejections",
            "memory",
            "store",
            "sessions",
            "proto",
            "instrumentation",
            "telemetry",
            "access",
            "transport",
            "fairness",
            "tonic",
            "prost_types",
            "http",
            "opentelemetry",
            "prost_reflect",
            "tower_http",
        ],
    ),
    // Authenticates callers by the connection and the headers, never by the content of a request.
    ("access", &["reload", "http", "governor"]),
    ("reload", &["log_throttle", "os_error", "small_file"]),
    ("authorities", &["os_error", "small_file", "rustls"]),
    ("os_error", &[]),
    ("small_file", &[]),
    (
        "transport",
        &[
            "access",
            "fairness",
            "instrumentation",
            "log_throttle",
            "patience",
            "os_error",
            "rejections",
            "reload",
            "tonic",
            "rustls",
            "x509_parser",
            "opentelemetry",
            "http",
            "hyper",
        ],
    ),
    (
        "proto",
        &[
            "domain",
            "protobuf_wire",
            "tonic",
            "prost_types",
            "prost_reflect",
        ],
    ),
    (
        "config",
        &[
            "os_error",
            "small_file",
            "access",
            "domain",
            "memory",
            "redis",
            "text_analysis",
            "tokens",
            "transport",
            "sqlx",
            "clap",
            "http",
        ],
    ),
    (
        "telemetry",
        &[
            "call",
            "config",
            "domain",
            "instrumentation",
            "log_throttle",
            "store",
            "recent",
            "sessions",
            "protobuf_wire",
            "http",
            "opentelemetry",
            "opentelemetry_sdk",
            "prometheus",
            "authorities",
        ],
    ),
    // Clients of a running sidecar.
    (
        "commands",
        &[
            "archive",
            "authorities",
            "config",
            "domain",
            "os_error",
            "proto",
            "small_file",
            "transport",
            "tonic",
            "http",
            "rustls",
        ],
    ),
    ("shutdown", &[]),
    (
        "app",
        &[
            "os_error",
            "jitter",
            "commands",
            "access",
            "reload",
            "config",
            "domain",
            "fairness",
            "rejections",
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
        ],
    ),
];

/// Libraries that only the modules that list them may depend on.
const RESTRICTED_LIBRARIES: &[&str] = &[
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
    "hyper",
    "governor",
    "protobuf_wire",
];

#[test]
fn modules_depend_only_on_what_they_may() {
    let mut violations = Vec::new();
    for (module, allowed) in MODULES {
        for file in files_of(module) {
            for dependency in dependencies_of(&fs::read_to_string(&file).unwrap()) {
                if dependency != *module && !allowed.contains(&dependency.as_str()) {
                    violations.push(format!("{} depends on {dependency}", file.display()));
                }
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn every_allowed_dependency_exists() {
    let mut unused = Vec::new();
    for (module, allowed) in MODULES {
        let mut used = BTreeSet::new();
        for file in files_of(module) {
            used.extend(dependencies_of(&fs::read_to_string(&file).unwrap()));
        }
        let missing = allowed.iter().filter(|name| !used.contains(**name));
        unused.extend(missing.map(|name| format!("{module} does not depend on {name}")));
    }
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn every_module_has_rules() {
    let library = fs::read_to_string(source().join("lib.rs")).unwrap();
    for line in library.lines() {
        if let Some(module) = line.trim_start_matches("pub ").strip_prefix("mod ") {
            let module = module.trim_end_matches(';');
            assert!(
                MODULES.iter().any(|(name, _)| *name == module),
                "{module} has no dependency rules"
            );
        }
    }
}

/// The modules and restricted libraries that a source text depends on.
fn dependencies_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // Imports and paths that begin with `crate::`, with a list in braces or without.
    for (at, prefix) in text.match_indices("crate::") {
        let rest = &text[at + prefix.len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => top_level_names(list),
            None => vec![first_word(rest)],
        };
        let is_module = |name: &String| {
            PACKAGES.contains(&name.as_str()) || MODULES.iter().any(|(module, _)| module == name)
        };
        found.extend(names.into_iter().filter(is_module));
    }
    for library in RESTRICTED_LIBRARIES {
        let path = format!("{library}::");
        let begins_a_word = |at: usize| {
            !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        };
        if text.match_indices(&path).any(|(at, _)| begins_a_word(at)) {
            found.insert((*library).to_owned());
        }
    }
    found
}

/// The first word of each item of an import list, up to the list's closing brace.
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

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module's own file, and all files in its folder.
fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let file = source().join(format!("{module}.rs"));
    if file.exists() {
        files.push(file);
    }
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "there is no module {module}");
    files
}
