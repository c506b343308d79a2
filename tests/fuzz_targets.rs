//! The fuzz targets with fixed inputs: their corpora, and mutations that depend on a seed only.
//! `make fuzz` runs the same targets with libFuzzer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{fs, path::Path};

use fuzz_targets::{TARGETS, Target};
use test_support::{random::Random, rounds};

/// Number of mutations of each target if `FUZZ_MUTATIONS` is not set.
const MUTATIONS: u32 = 2_000;
/// Bytes that have a meaning in one of the formats.
const SPECIAL: &[u8] = b"\0\x01\x7f\x80\xff\n\r {}[]\",:.;=@%-+0e";

#[test]
fn every_decoder_accepts_its_corpus_and_mutations_of_it() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let corpus = read(&corpora.join(name));
        assert!(corpus.len() > 1, "{name} has no corpus");
        for data in &corpus {
            target(data);
        }
        mutate(name, target, &corpus);
    }
}

fn read(folder: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn mutate(name: &str, target: Target, corpus: &[Vec<u8>]) {
    let mut random = Random::new(0);
    for _ in 0..rounds("FUZZ_MUTATIONS", MUTATIONS) {
        let mut data = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            change(&mut random, &mut data, corpus);
        }
        let caught = std::panic::catch_unwind(|| target(&data));
        assert!(
            caught.is_ok(),
            "{name} fails with {:?}",
            String::from_utf8_lossy(&data)
        );
    }
}

/// Changes one place of an input.
fn change(random: &mut Random, data: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    if data.is_empty() {
        data.push(SPECIAL[random.below(SPECIAL.len())]);
    }
    let at = random.below(data.len());
    let end = at + random.below(data.len() - at).min(16);
    match random.below(7) {
        0 => data[at] ^= 1 << random.below(8),
        1 => data[at] = SPECIAL[random.below(SPECIAL.len())],
        2 => data.insert(at, SPECIAL[random.below(SPECIAL.len())]),
        3 => drop(data.drain(at..end)),
        4 => data.truncate(at),
        5 => {
            let piece = data[at..end].to_vec();
            data.splice(at..at, piece);
        }
        _ => {
            let other = &corpus[random.below(corpus.len())];
            data.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
    }
}
