//! Division of a text into words and their terms.

use crate::{
    SEARCHED_CHARS,
    classes::{Class, class},
    folding::{Folded, fold},
    languages::Languages,
};

/// Greatest position of a word, which `PostgreSQL` can store.
pub(crate) const MAX_POSITION: u16 = 16_382;

/// Upper bound on the bytes of a term. Longer words are divided.
const MAX_TERM_BYTES: usize = 240;

/// Upper bound on the characters of a word that is divided into parts.
const MAX_DIVIDED: usize = 64;

/// Shortest part of a word that is a term, in characters.
const MIN_PART: usize = 2;

/// Marks terms that are stems, so that they differ from words.
pub(crate) const STEM_MARK: char = '=';

/// Word of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Folded word; in scripts without spaces between words, a pair of characters, or the last one.
    pub(crate) text: String,
    /// Lower-case word with diacritics, which stems are derived from.
    accented: String,
    /// Folded parts, such as `user` and `name` of `userName`.
    pub(crate) parts: Vec<String>,
    /// Position, from 1. Separators have none.
    pub(crate) position: u16,
    /// Bytes of the text.
    pub(crate) start: usize,
    /// Byte after the word.
    pub(crate) end: usize,
    /// Whether it is the last character of a run of pairs. Longer runs are found without it.
    pub(crate) is_single: bool,
}

impl Word {
    /// Terms under which the word is found, without repetitions.
    pub(crate) fn terms(&self, languages: Languages) -> Vec<String> {
        let mut terms = vec![self.text.clone()];
        if !self.accented.is_empty() {
            for stem in languages.stems(&self.accented) {
                let stem = folded(&stem);
                if stem != self.text && !stem.is_empty() {
                    terms.push(format!("{STEM_MARK}{stem}"));
                }
            }
        }
        for part in &self.parts {
            terms.push(part.clone());
            for stem in languages.stems(part) {
                if stem != *part {
                    terms.push(format!("{STEM_MARK}{stem}"));
                }
            }
        }
        terms.sort_unstable();
        terms.dedup();
        terms
    }

    /// Stems of the word, folded.
    pub(crate) fn stems(&self, languages: Languages) -> Vec<String> {
        let stems = languages.stems(&self.accented).map(|stem| folded(&stem));
        stems.filter(|stem| !stem.is_empty()).collect()
    }
}

fn folded(text: &str) -> String {
    // Lower-case ASCII is folded already, and most stems are.
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    fold(text, SEARCHED_CHARS)
        .iter()
        .map(|folded| folded.char)
        .collect()
}

/// Divides a text into words.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let folded = fold(text, SEARCHED_CHARS);
    let mut words = Words::default();
    let mut rest = folded.as_slice();
    while let Some(first) = rest.first() {
        let class = class(first.char);
        let length = run_length(rest, class);
        let (run, after) = rest.split_at(length);
        match class {
            Class::Word => words.add_run(run),
            Class::Pair => words.add_pairs(run),
            Class::Mark | Class::Separator => {}
        }
        rest = after;
    }
    words.found
}

/// Number of characters of the run of a class, with their marks.
fn run_length(folded: &[Folded], of: Class) -> usize {
    let ends = |f: &Folded| {
        let class = class(f.char);
        class != of && (class != Class::Mark || of == Class::Separator)
    };
    folded.iter().position(ends).unwrap_or(folded.len())
}

#[derive(Default)]
struct Words {
    found: Vec<Word>,
    /// Number of positions that are used.
    positions: u16,
}

impl Words {
    fn add(&mut self, folded: &[Folded], parts: Vec<String>, is_single: bool) {
        let (Some(first), Some(last)) = (folded.first(), folded.last()) else {
            return;
        };
        if self.positions == MAX_POSITION {
            return;
        }
        self.positions += 1;
        self.found.push(Word {
            text: text_of(folded),
            accented: if is_single || class(first.char) == Class::Pair {
                String::new()
            } else {
                folded.iter().filter_map(|f| f.accented).collect()
            },
            parts,
            position: self.positions,
            start: first.start,
            end: last.end,
            is_single,
        });
    }

    /// Adds a run of letters and digits, divided if it is too long.
    fn add_run(&mut self, run: &[Folded]) {
        let mut rest = run;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|f| {
                bytes += f.char.len_utf8();
                bytes <= MAX_TERM_BYTES
            });
            let (word, after) = rest.split_at(fitting.count());
            self.add(word, parts(word), false);
            rest = after;
        }
    }

    /// Adds each pair of neighbouring characters, and the last character.
    fn add_pairs(&mut self, run: &[Folded]) {
        let mut starts: Vec<usize> = (0..run.len())
            .filter(|place| *place == 0 || class(run[*place].char) != Class::Mark)
            .collect();
        starts.push(run.len());
        for (index, start) in starts[..starts.len() - 1].iter().enumerate() {
            let end = starts.get(index + 2).copied();
            let pair = &run[*start..end.unwrap_or(run.len())];
            // More marks than a script has are not searched for.
            let pair = &pair[..pair.len().min(MAX_TERM_BYTES / 4)];
            self.add(pair, Vec::new(), end.is_none());
        }
    }
}

fn text_of(folded: &[Folded]) -> String {
    folded.iter().map(|folded| folded.char).collect()
}

/// Returns the parts of a word that consists of several: `user` and `name` of `userName`, `sku` and
/// `1234` of `SKU1234`.
fn parts(word: &[Folded]) -> Vec<String> {
    if word.len() > MAX_DIVIDED {
        return Vec::new();
    }
    let mut bounds = vec![0];
    for place in 1..word.len() {
        let (before, this) = (word[place - 1], word[place]);
        let is_hump = this.is_upper && !before.is_upper && before.char.is_alphabetic();
        let is_digit = before.char.is_numeric() != this.char.is_numeric();
        if (is_hump || is_digit) && class(this.char) == Class::Word && this.start != before.start {
            bounds.push(place);
        }
    }
    if bounds.len() == 1 {
        return Vec::new();
    }
    bounds.push(word.len());
    bounds
        .windows(2)
        .map(|bound| &word[bound[0]..bound[1]])
        .filter(|part| part.len() >= MIN_PART)
        .map(text_of)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn divides_texts() {
        for (text, expected) in [
            ("Hello, world!", "hello world"),
            ("it's l'école", "it s l ecole"),
            ("a@b.example/x_y-z?q=1,5", "a b example x y z q 1 5"),
            ("北京大学 东京", "北京 京大 大学 学 东京 京"),
            ("สวัสดี", "สวั วัส สดี ดี"),
            ("हिन्दी में", "हिन्दी में"),
            ("x👩‍👩‍👧y", "x y"),
            ("abc東京def", "abc 東京 京 def"),
            ("\u{301}\u{301} -", ""),
        ] {
            assert_eq!(texts(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn divides_words_into_parts() {
        for (text, expected) in [
            ("userName", "user name"),
            ("SKU1234", "sku 1234"),
            ("parseHTTPResponse2xx", "parse httpresponse xx"),
            ("Word", ""),
            ("v2", ""),
        ] {
            assert_eq!(words(text)[0].parts.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn stems_are_marked() {
        let terms = |text: &str, languages: &str| {
            words(text)[0].terms(Languages::from_names(languages).unwrap())
        };
        assert_eq!(terms("Policies", "english"), ["=polici", "policies"]);
        assert_eq!(terms("policies", "none"), ["policies"]);
        assert_eq!(terms("run", "english"), ["run"]);
        assert_eq!(terms("Häuser", "german"), ["=haus", "hauser"]);
    }

    #[test]
    fn long_words_are_divided() {
        let words = words(&"é".repeat(600));
        let lengths: Vec<_> = words.iter().map(|word| word.text.len()).collect();
        assert_eq!(lengths, [240, 240, 120]);
        assert_eq!((words[2].start, words[2].end), (960, 1200));
    }
}
