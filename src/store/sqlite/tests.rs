use std::{fs, path::Path};

/// Returns the statements' limits in the sources of a folder that are variables alone.
fn bare_limits(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("postgres") {
            continue;
        }
        if path.is_dir() {
            found.extend(bare_limits(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let variables = source.split("LIMIT ").skip(1);
            let is_bare = |rest: &&str| {
                let mut rest = rest.chars();
                matches!(rest.next(), Some('$' | '?')) && rest.next().is_some_and(char::is_numeric)
            };
            found.extend(variables.filter(is_bare).map(|rest| {
                let line = rest.lines().next().unwrap_or_default();
                format!("{}: LIMIT {line}", path.display())
            }));
        }
    }
    found
}

/// SQLite prepares a statement again at each run if the limit is a variable alone, which took four
/// fifths of the time of a read.
#[test]
fn no_limit_is_a_variable_alone() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    assert_eq!(bare_limits(&sources), Vec::<String>::new());
}
