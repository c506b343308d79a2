//! Folding: characters that readers and writers treat as the same become the same.

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use crate::classes::is_joiner;

/// Character of a folded text, and the characters of the original that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    /// Folded character: lower case, without diacritics.
    pub(crate) char: char,
    /// Lower-case character with its diacritics, from which stems are derived.
    pub(crate) accented: Option<char>,
    /// Whether the original is an upper-case letter.
    pub(crate) is_upper: bool,
    /// Byte of the original at which the character begins.
    pub(crate) start: usize,
    /// Byte of the original after the character.
    pub(crate) end: usize,
}

/// Folds the first `max` characters of a text: case, compatible forms such as full-width letters,
/// diacritics, and letters that are commonly written without them. Marks that are vowels or tones of
/// their script remain.
pub(crate) fn fold(text: &str, max: usize) -> Vec<Folded> {
    let mut folded = Vec::with_capacity(text.len().min(max));
    let mut rest = text.char_indices().take(max).peekable();
    while let Some((start, c)) = rest.next() {
        if c.is_ascii() && rest.peek().is_none_or(|(_, next)| next.is_ascii()) {
            folded.push(Folded {
                char: c.to_ascii_lowercase(),
                accented: Some(c.to_ascii_lowercase()),
                is_upper: c.is_ascii_uppercase(),
                start,
                end: start + 1,
            });
            continue;
        }
        // A character and its marks are composed together.
        let mut end = start + c.len_utf8();
        let mut cluster = String::from(c);
        while let Some((at, mark)) = rest.next_if(|(_, next)| continues(*next)) {
            end = at + mark.len_utf8();
            // A longer sequence of marks has no meaning, and composing it takes quadratic time.
            if cluster.len() < 64 {
                cluster.push(mark);
            }
        }
        fold_cluster(&cluster, start, end, &mut folded);
    }
    folded
}

/// Whether a character is composed with the one before it: a mark, a voicing mark of half-width
/// katakana, or a part of a Hangul syllable.
fn continues(c: char) -> bool {
    is_combining_mark(c)
        || is_joiner(c)
        || matches!(c, '\u{ff9e}' | '\u{ff9f}' | '\u{1160}'..='\u{11ff}')
}

fn fold_cluster(cluster: &str, start: usize, end: usize, folded: &mut Vec<Folded>) {
    let is_upper = cluster.chars().next().is_some_and(char::is_uppercase);
    let lower: String = cluster
        .nfkc()
        .flat_map(char::to_lowercase)
        .filter(|c| !is_joiner(*c))
        .collect();
    let mut buffer = String::with_capacity(8);
    for accented in lower.nfkc() {
        buffer.clear();
        let bases = std::iter::once(accented).nfd();
        buffer.extend(bases.filter(|c| !is_diacritic(*c)));
        let mut accented = Some(accented);
        for base in buffer.nfc() {
            let mut add = |char| {
                folded.push(Folded {
                    char,
                    accented: accented.take(),
                    is_upper,
                    start,
                    end,
                });
            };
            match plain(base) {
                Plain::One(c) => add(c),
                Plain::Two(first, second) => {
                    add(first);
                    add(second);
                }
            }
        }
    }
}

/// Whether a mark is a diacritic, and no vowel or tone that distinguishes words of its script.
fn is_diacritic(c: char) -> bool {
    matches!(c,
        '\u{0300}'..='\u{036f}'
        | '\u{0483}'..='\u{0489}'
        | '\u{0591}'..='\u{05bd}' | '\u{05bf}' | '\u{05c1}' | '\u{05c2}' | '\u{05c4}' | '\u{05c5}' | '\u{05c7}'
        | '\u{0610}'..='\u{061a}' | '\u{0640}' | '\u{064b}'..='\u{065f}' | '\u{0670}'
        | '\u{06d6}'..='\u{06dc}' | '\u{06df}'..='\u{06e4}' | '\u{06e7}' | '\u{06e8}' | '\u{06ea}'..='\u{06ed}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe20}'..='\u{fe2f}')
}

enum Plain {
    One(char),
    Two(char, char),
}

/// Returns what a letter without a decomposition is commonly written as, and the ASCII digit of a
/// digit of another script.
fn plain(c: char) -> Plain {
    Plain::One(match c {
        'ß' => return Plain::Two('s', 's'),
        'æ' => return Plain::Two('a', 'e'),
        'œ' => return Plain::Two('o', 'e'),
        'þ' => return Plain::Two('t', 'h'),
        'ø' => 'o',
        'đ' | 'ð' => 'd',
        'ł' => 'l',
        'ħ' => 'h',
        'ı' => 'i',
        'ŋ' => 'n',
        'ŧ' => 't',
        'ς' => 'σ',
        // Forms of Arabic letters that writers use alike.
        'ى' | 'ی' => 'ي',
        'ک' => 'ك',
        'ة' => 'ه',
        _ => digit(c).unwrap_or(c),
    })
}

/// Zeros of the scripts that are written with digits of their own.
const ZEROS: [char; 14] = [
    '٠', '۰', '०', '০', '੦', '૦', '୦', '௦', '౦', '೦', '൦', '๐', '໐', '០',
];

fn digit(c: char) -> Option<char> {
    if c < ZEROS[0] {
        return None;
    }
    let value = |zero: &char| u32::from(c).wrapping_sub(u32::from(*zero));
    let digit = ZEROS.iter().map(value).find(|digit| *digit < 10)?;
    char::from_digit(digit, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        fold(text, 100).iter().map(|folded| folded.char).collect()
    }

    #[test]
    fn folds_case_diacritics_and_compatible_forms() {
        for (text, expected) in [
            ("ПРИВЕТ", "привет"),
            ("Café CAFE\u{301}", "cafe cafe"),
            ("Straße ẞ Æsop Øre Łódź", "strasse ss aesop ore lodz"),
            ("İstanbul ısı", "istanbul isi"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("ﬁne Ｆｕｌｌ ①②", "fine full 12"),
            ("ｶﾞｷﾞ が か\u{3099}", "ガギ が が"),
            ("\u{1112}\u{1161}\u{11ab}", "한"),
            ("हिन्दी", "हिन्दी"),
            ("ที่นี่", "ที่นี่"),
            ("שָׁלוֹם", "שלום"),
            ("مُحَمَّد أحمد", "محمد احمد"),
            ("१२३ ٤٥٦", "123 456"),
            ("می\u{200c}روم", "ميروم"),
            ("Việt Nam", "viet nam"),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn characters_keep_their_places() {
        let folded = fold("aßé", 100);
        let places: Vec<_> = folded.iter().map(|f| (f.char, f.start, f.end)).collect();
        assert_eq!(places, [('a', 0, 1), ('s', 1, 3), ('s', 1, 3), ('e', 3, 5)]);
        assert_eq!(fold(&"é".repeat(200), 100).len(), 100);
    }
}
