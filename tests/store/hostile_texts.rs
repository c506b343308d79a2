//! Texts of all scripts, and texts that reach the limits of search indexes.

/// Characters whose number of bytes changes when they are folded to lower case or normalized.
const CHANGING: [char; 24] = [
    'Ⱥ', 'Ⱦ', 'İ', 'I', 'ı', 'ẞ', 'ß', 'ŉ', 'ﬃ', 'ǰ', 'ΐ', 'ᾈ', 'ᾳ', 'ῼ', 'Σ', 'ς', '\u{212a}',
    '\u{212b}', 'Ω', 'Ɐ', 'Ｚ', '𐐀', '𞤀', 'Ꮳ',
];

/// Characters that parsers of addresses, hosts, paths, numbers and tags react to.
const SYNTAX: [&str; 16] = [
    "@1a", "a1@", "-", "a-", "a_", "a.", "a/", "1.1", "1e-", "http://", "://a.b/", "<a ", "&a",
    "'", "\\", "~/",
];

/// Lengths around the limits of lexemes, words and documents, in characters.
const LENGTHS: [usize; 8] = [255, 256, 683, 1_000, 1_024, 1_365, 2_047, 20_000];

/// Returns all texts.
pub(crate) fn hostile_texts() -> Vec<String> {
    let mut texts = all_characters();
    for c in CHANGING {
        for length in LENGTHS {
            texts.push(c.to_string().repeat(length));
        }
        texts.extend(within_tokens(c));
    }
    for syntax in SYNTAX {
        texts.push(syntax.repeat(5_000));
        texts.push(format!("{} ", syntax.repeat(80)).repeat(60));
    }
    texts.extend(combined());
    texts
}

/// Every character but U+0000: as one word for each 16,000, and as words of 50.
fn all_characters() -> Vec<String> {
    let characters: Vec<char> = ('\u{1}'..=char::MAX).collect();
    let whole = characters
        .chunks(16_000)
        .map(|chunk| chunk.iter().collect());
    let words = characters.chunks(15_000).map(|chunk| {
        let words: Vec<String> = chunk.chunks(50).map(|word| word.iter().collect()).collect();
        words.join(" ")
    });
    whole.chain(words).collect()
}

/// A character in long tokens of each kind that PostgreSQL distinguishes.
fn within_tokens(c: char) -> Vec<String> {
    let long = c.to_string().repeat(1_000);
    let short = c.to_string().repeat(60);
    vec![
        format!("{long}-{long}-x"),
        format!("{short}-").repeat(30),
        format!("a{long}1"),
        format!("http://example.com/{long}/{long}?q={long}#{long}"),
        format!("http://{long}.com/x"),
        format!("{short}.").repeat(40),
        format!("/usr/{long}/{long}.txt"),
        format!("{long}@example.com"),
        format!("x@{long}.com"),
        format!("<{long} a=\"{long}\">"),
        format!("&{long};"),
        format!("\u{a0}{long}\u{3000}{long}\u{200b}{long}"),
    ]
}

fn numbers() -> Vec<String> {
    (0..9_000).map(|number| format!("{number:x}")).collect()
}

/// Combining marks, and hosts, paths and words of up to 100 KB.
fn combined() -> Vec<String> {
    let mut texts = vec![
        format!("a{}", "\u{301}".repeat(20_000)),
        "e\u{301}".repeat(10_000),
        "\u{1100}\u{1161}\u{11a8}".repeat(5_000),
        "👩\u{200d}👩\u{200d}👧".repeat(3_000),
        "\u{202e}\u{2066}العربية".repeat(2_000),
        "Ⱥ\u{212a}".repeat(1_000),
        numbers().join(" "),
        numbers().join("."),
    ];
    for kilobytes in [3, 20, 100] {
        let size = kilobytes * 1_000;
        texts.extend([
            format!("https://example.com/{}", "path/".repeat(size / 5)),
            format!("https://{}", "label.".repeat(size / 6)),
            format!("https://example.com/?{}", "key=value&".repeat(size / 10)),
            format!("/{}", "folder/".repeat(size / 7)),
            format!("www.example.com/{}", "x".repeat(size)),
            format!("{}@example.com", "name.".repeat(size / 5)),
            "word-".repeat(size / 5),
            "0123456789".repeat(size / 10),
            "Wörter".repeat(size / 7),
        ]);
    }
    texts
}
