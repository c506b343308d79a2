use std::io::{Cursor, Read as _};

use super::*;

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Vec::new());
    for (name, content) in entries {
        let mut entry = zip.begin(name).unwrap();
        for piece in content.chunks(1000) {
            entry.write(piece).unwrap();
        }
        entry.finish().unwrap();
    }
    zip.finish().unwrap()
}

fn read(file: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ZipError> {
    let mut zip = ZipReader::open(Cursor::new(file))?;
    let names: Vec<String> = zip.names().map(str::to_owned).collect();
    let mut entries = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let mut content = Vec::new();
        zip.entry(index)?.read_to_end(&mut content)?;
        entries.push((name, content));
    }
    Ok(entries)
}

#[test]
fn reads_what_it_has_written() {
    let large = "conversation ".repeat(100_000).into_bytes();
    let entries: [(&str, &[u8]); 3] = [("a.jsonl", b"{}\n"), ("é/b.json", b""), ("c", &large)];
    let file = zip(&entries);
    assert!(file.len() < large.len() / 10);
    let found = read(&file).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(name, text)| (name.as_str(), &text[..]))
        .collect();
    assert_eq!(found, entries);
    assert!(read(&zip(&[])).unwrap().is_empty());
}

#[test]
fn reads_zip_files_of_python() {
    // zipfile of Python with a stored and a deflated entry, and a comment.
    const FILE: &[u8] = include_bytes!("../tests/python.zip");
    let found = read(FILE).unwrap();
    assert_eq!(found[0], ("conversations.json".to_owned(), b"[]".to_vec()));
    assert_eq!(found[1], ("chat.html".to_owned(), b"x".repeat(1000)));
}

#[test]
fn damaged_files_are_rejected() {
    let file = zip(&[("a", &b"some text ".repeat(100))]);
    for cut in 0..file.len() {
        assert!(read(&file[..cut]).is_err(), "{cut}");
    }
    let mut accepted = 0;
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0xFF;
        // Names, times and unused numbers may differ; the content never does.
        if let Ok(entries) = read(&damaged) {
            accepted += 1;
            for (_, content) in entries {
                assert_eq!(content, b"some text ".repeat(100), "{at}");
            }
        }
    }
    assert!(accepted < file.len());
}
