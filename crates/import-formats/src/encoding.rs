//! Converts the bytes of a file to UTF-8.

use std::io::{self, Read, Write};

/// Bytes that are read from the file at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Copies a text as UTF-8 without a byte order mark.
///
/// # Errors
/// Fails if the text cannot be read or written.
pub fn copy_as_utf8(input: impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut reader = Utf8Reader::new(input);
    let mut piece = Vec::new();
    while reader.read_into(&mut piece)? {
        output.write_all(&piece)?;
        piece.clear();
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// Invalid bytes are replaced where a text is parsed.
    Utf8,
    Utf16 {
        is_little_endian: bool,
    },
}

/// Reads UTF-8 with or without a byte order mark, and UTF-16 of either byte order, as UTF-8.
#[derive(Debug)]
pub(crate) struct Utf8Reader<R> {
    input: R,
    /// `None` until the first bytes have been read.
    encoding: Option<Encoding>,
    /// Bytes that do not form a complete character yet, or that have not been converted.
    raw: Vec<u8>,
    is_at_end: bool,
}

impl<R: Read> Utf8Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            encoding: None,
            raw: Vec::new(),
            is_at_end: false,
        }
    }

    /// Appends the next piece to `text`. Returns whether there was one.
    pub(crate) fn read_into(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        if self.encoding.is_none() {
            while self.raw.len() < 4 && self.fill()? {}
            let (encoding, mark) = detect(&self.raw);
            self.raw.drain(..mark);
            self.encoding = Some(encoding);
        } else if !self.fill()? && self.raw.is_empty() {
            return Ok(false);
        }
        if self.raw.is_empty() {
            return Ok(!self.is_at_end);
        }
        match self.encoding {
            Some(Encoding::Utf16 { is_little_endian }) => self.convert(is_little_endian, text),
            _ => text.append(&mut self.raw),
        }
        Ok(true)
    }

    fn fill(&mut self) -> io::Result<bool> {
        if self.is_at_end {
            return Ok(false);
        }
        let limit = CHUNK_BYTES as u64;
        let read = self.input.by_ref().take(limit).read_to_end(&mut self.raw)?;
        self.is_at_end = read == 0;
        Ok(!self.is_at_end)
    }

    fn convert(&mut self, is_little_endian: bool, text: &mut Vec<u8>) {
        let mut complete = self.raw.len() & !1;
        let unit = |pair: &[u8]| {
            if is_little_endian {
                u16::from_le_bytes([pair[0], pair[1]])
            } else {
                u16::from_be_bytes([pair[0], pair[1]])
            }
        };
        let ends_with_half =
            complete >= 2 && (0xD800..0xDC00).contains(&unit(&self.raw[complete - 2..complete]));
        // The other half of a character may be in the next piece.
        if ends_with_half && !self.is_at_end {
            complete -= 2;
        }
        let units = self.raw[..complete].chunks_exact(2).map(unit);
        let mut encoded = [0; 4];
        for character in char::decode_utf16(units) {
            let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
            text.extend_from_slice(character.encode_utf8(&mut encoded).as_bytes());
        }
        self.raw.drain(..complete);
        if self.is_at_end {
            // A single byte is left of a file that was cut off.
            self.raw.clear();
        }
    }
}

/// Detects the encoding by its mark, or by the zero bytes of ASCII characters in UTF-16. Returns the
/// length of the mark, too.
fn detect(start: &[u8]) -> (Encoding, usize) {
    match *start {
        [0xEF, 0xBB, 0xBF, ..] => (Encoding::Utf8, 3),
        [0xFF, 0xFE, ..] => (utf16(true), 2),
        [0xFE, 0xFF, ..] => (utf16(false), 2),
        [first, 0, ..] if first != 0 => (utf16(true), 0),
        [0, second, ..] if second != 0 => (utf16(false), 0),
        _ => (Encoding::Utf8, 0),
    }
}

const fn utf16(is_little_endian: bool) -> Encoding {
    Encoding::Utf16 { is_little_endian }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a few bytes at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(3);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read(bytes: &[u8]) -> Vec<u8> {
        let mut reader = Utf8Reader::new(Slow(bytes));
        let mut text = Vec::new();
        while reader.read_into(&mut text).unwrap() {}
        text
    }

    #[test]
    fn converts_each_encoding() {
        let text = "[\"é 😀\"]\r\n".repeat(20_000);
        let (mut little, mut big) = (vec![0xFF, 0xFE], vec![0xFE, 0xFF]);
        for unit in text.encode_utf16() {
            little.extend(unit.to_le_bytes());
            big.extend(unit.to_be_bytes());
        }
        assert_eq!(read(&little), text.as_bytes());
        assert_eq!(read(&big), text.as_bytes());
        assert_eq!(read(&little[2..]), text.as_bytes());
        assert_eq!(read(&big[2..]), text.as_bytes());
        assert_eq!(read(format!("\u{feff}{text}").as_bytes()), text.as_bytes());
        assert_eq!(read(text.as_bytes()), text.as_bytes());
        let mut copied = Vec::new();
        copy_as_utf8(Slow(&big), &mut copied).unwrap();
        assert_eq!(copied, text.as_bytes());
        assert_eq!(read(b""), b"");
        assert_eq!(read(b"{"), b"{");
    }

    #[test]
    fn replaces_halves_of_characters() {
        let cut = [0xFF, 0xFE, b'a', 0, 0x3D, 0xD8, b'b'];
        assert_eq!(read(&cut), "a\u{fffd}".as_bytes());
    }
}
