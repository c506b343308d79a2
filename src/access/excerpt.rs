use std::fmt;

/// Beginning of a header that a caller has sent, for error texts and logs. It consists of the
/// characters of host names, ports and origins; other ones are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    const MAX_CHARS: usize = 100;

    pub(super) fn of(header: &[u8]) -> Self {
        let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/[]".contains(&byte);
        let kept = header.iter().take(Self::MAX_CHARS);
        let mut text: String = kept
            .map(|byte| {
                if is_kept(*byte) {
                    char::from(*byte)
                } else {
                    '?'
                }
            })
            .collect();
        if header.len() > Self::MAX_CHARS {
            text.push_str("...");
        }
        Self(text.into())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_neither_long_texts_nor_characters_with_a_meaning_elsewhere() {
        for (header, excerpt) in [
            (&b"evil.example:80"[..], "\"evil.example:80\""),
            (b"https://[::1]:8080", "\"https://[::1]:8080\""),
            (b"", "\"\""),
            (b"<script>\"'&%0d%0a", "\"?script?????0d?0a\""),
            (b"caf\xc3\xa9\x1b[31m\r\n", "\"caf???[31m??\""),
        ] {
            let shown = Excerpt::of(header).to_string();
            assert!(shown.starts_with(excerpt), "{shown}");
        }
        let long = Excerpt::of(&[b'a'; 10_000]).to_string();
        assert_eq!(long, format!("\"{}...\"", "a".repeat(100)));
    }
}
