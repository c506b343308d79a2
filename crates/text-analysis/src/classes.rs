//! Classes of characters that the analysis distinguishes.

use unicode_normalization::char::is_combining_mark;

/// Class of a folded character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Letter or number of a script with spaces between words.
    Word,
    /// Letter of a script without spaces between words, or of Korean, whose particles are written
    /// together with the words.
    Pair,
    /// Mark or joiner that belongs to the character before it.
    Mark,
    /// Anything else, which separates words.
    Separator,
}

/// Returns the class of a folded character.
pub(crate) fn class(c: char) -> Class {
    if c.is_ascii() {
        return if c.is_ascii_alphanumeric() {
            Class::Word
        } else {
            Class::Separator
        };
    }
    if is_combining_mark(c) || is_joiner(c) {
        Class::Mark
    } else if !c.is_alphanumeric() {
        Class::Separator
    } else if is_paired(c) {
        Class::Pair
    } else {
        Class::Word
    }
}

/// Returns whether a character only joins or separates the shapes of letters.
pub(crate) fn is_joiner(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}'
    )
}

/// Han, kana, Hangul, Thai, Lao, Burmese, Khmer and the scripts related to them.
fn is_paired(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1100}'..='\u{11ff}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{1950}'..='\u{19df}'
        | '\u{1a20}'..='\u{1aad}'
        | '\u{2e80}'..='\u{2fdf}'
        | '\u{3005}'..='\u{3007}'
        | '\u{3021}'..='\u{30ff}'
        | '\u{3105}'..='\u{318e}'
        | '\u{31a0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{a9e0}'..='\u{a9fe}'
        | '\u{aa60}'..='\u{aadf}'
        | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{16fe0}'..='\u{18d7f}'
        | '\u{1aff0}'..='\u{1b2ff}'
        | '\u{20000}'..='\u{3ffff}')
}
