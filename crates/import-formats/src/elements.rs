//! Splits a file into JSON values: the elements of a list, the lines of JSON Lines, or one document.

use std::io::{self, Read};

use super::encoding::Utf8Reader;

/// Upper bounds on one JSON value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElementLimits {
    /// The bytes are UTF-8 text.
    pub(crate) bytes: usize,
    /// Values in it, which in memory take far more bytes than in the file.
    pub(crate) values: usize,
}

/// What follows next in a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// A list begins; its elements follow.
    ListStart,
    /// The list has ended.
    ListEnd,
    /// A value: an element of the list, or one at the top level of the file.
    Value(Vec<u8>),
    /// A value that exceeds a limit. It has been skipped.
    TooLarge,
    /// The file ends within a value or within a list.
    Truncated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// No value of the top level has been read.
    Unknown,
    /// A value that took up the first line has been read. Each line is read by itself from now on,
    /// so that an invalid one does not affect the next one.
    Lines,
    /// Values are read up to their closing brackets.
    Values,
}

/// Events of a file, in order.
#[derive(Debug)]
pub(crate) struct Elements<R> {
    input: Utf8Reader<R>,
    limits: ElementLimits,
    buffer: Vec<u8>,
    position: usize,
    layout: Layout,
    is_in_list: bool,
    is_at_end: bool,
}

/// Progress within a value.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    is_in_text: bool,
    is_escaped: bool,
    values: usize,
    has_line_break: bool,
}

impl Scan {
    /// Adds a byte. Returns whether the value ends before it (`Some(false)`) or with it
    /// (`Some(true)`).
    fn push(&mut self, byte: u8) -> Option<bool> {
        self.has_line_break |= byte == b'\n';
        if self.is_in_text {
            if self.is_escaped {
                self.is_escaped = false;
            } else if byte == b'\\' {
                self.is_escaped = true;
            } else if byte == b'"' {
                self.is_in_text = false;
                return (self.depth == 0).then_some(true);
            }
            return None;
        }
        match byte {
            b'"' => self.is_in_text = true,
            b'{' | b'[' => {
                self.depth += 1;
                self.values += 1;
            }
            b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => {
                return Some(false);
            }
            b'}' | b']' => {
                self.depth -= 1;
                return (self.depth == 0).then_some(true);
            }
            b',' | b':' => self.values += 1,
            _ => {}
        }
        None
    }
}

impl<R: Read> Elements<R> {
    pub(crate) fn new(input: R, limits: ElementLimits) -> Self {
        Self {
            input: Utf8Reader::new(input),
            limits,
            buffer: Vec::new(),
            position: 0,
            layout: Layout::Unknown,
            is_in_list: false,
            is_at_end: false,
        }
    }

    /// Returns the next event; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> io::Result<Option<Event>> {
        loop {
            let Some(byte) = self.byte()? else {
                let was_in_list = std::mem::take(&mut self.is_in_list);
                return Ok(was_in_list.then_some(Event::Truncated));
            };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => self.position += 1,
                b']' if self.is_in_list => {
                    self.position += 1;
                    self.is_in_list = false;
                    return Ok(Some(Event::ListEnd));
                }
                b'[' if !self.is_in_list && self.layout != Layout::Lines => {
                    self.position += 1;
                    self.is_in_list = true;
                    return Ok(Some(Event::ListStart));
                }
                _ if self.layout == Layout::Lines => return self.line().map(Some),
                _ => return self.value().map(Some),
            }
        }
    }

    fn line(&mut self) -> io::Result<Event> {
        let (mut line, mut values, mut is_too_large) = (Vec::new(), 0, false);
        while let Some(byte) = self.byte()? {
            self.position += 1;
            if byte == b'\n' {
                break;
            }
            values += usize::from(matches!(byte, b',' | b':' | b'[' | b'{'));
            is_too_large |= line.len() >= self.limits.bytes;
            if !is_too_large {
                line.push(byte);
            }
        }
        // Characters of texts are counted as well, so that the bound is a rough one.
        if is_too_large || values / 8 > self.limits.values {
            return Ok(Event::TooLarge);
        }
        Ok(Event::Value(line))
    }

    fn value(&mut self) -> io::Result<Event> {
        let (mut scan, mut value, mut is_too_large) = (Scan::default(), Vec::new(), false);
        let is_complete = loop {
            let Some(byte) = self.byte()? else {
                break scan.depth == 0 && !scan.is_in_text;
            };
            let end = scan.push(byte);
            if end == Some(false) {
                // A closing bracket without an opening one must not be read for ever.
                if value.is_empty() {
                    value.push(byte);
                    self.position += 1;
                }
                break true;
            }
            self.position += 1;
            is_too_large |= value.len() >= self.limits.bytes || scan.values > self.limits.values;
            if is_too_large {
                value = Vec::new();
            } else {
                value.push(byte);
            }
            if end == Some(true) {
                break true;
            }
        };
        if !self.is_in_list && self.layout == Layout::Unknown {
            let is_line = is_complete && !scan.has_line_break && self.is_before_line_break()?;
            self.layout = if is_line {
                Layout::Lines
            } else {
                Layout::Values
            };
        }
        Ok(match (is_too_large, is_complete) {
            (true, _) => Event::TooLarge,
            (false, true) => Event::Value(value),
            (false, false) => {
                self.is_in_list = false;
                Event::Truncated
            }
        })
    }

    fn is_before_line_break(&mut self) -> io::Result<bool> {
        while let Some(byte) = self.byte()? {
            match byte {
                b' ' | b'\t' | b'\r' => self.position += 1,
                _ => return Ok(byte == b'\n'),
            }
        }
        Ok(false)
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        while self.position == self.buffer.len() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(self.buffer.get(self.position).copied())
    }

    fn fill(&mut self) -> io::Result<bool> {
        if self.is_at_end {
            return Ok(false);
        }
        self.buffer.drain(..self.position);
        self.position = 0;
        self.is_at_end = !self.input.read_into(&mut self.buffer)?;
        Ok(!self.is_at_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ElementLimits = ElementLimits {
        bytes: 100,
        values: 20,
    };

    fn events(text: &str) -> Vec<String> {
        let mut elements = Elements::new(text.as_bytes(), LIMITS);
        let mut events = Vec::new();
        while let Some(event) = elements.next().unwrap() {
            events.push(match event {
                Event::Value(value) => String::from_utf8(value).unwrap(),
                other => format!("{other:?}"),
            });
        }
        events
    }

    #[test]
    fn splits_lists_lines_and_documents() {
        assert_eq!(
            events(" [ {\"a\":\"]}\\\"\"} , null,3, [1, 2] ]\n"),
            [
                "ListStart",
                "{\"a\":\"]}\\\"\"}",
                "null",
                "3",
                "[1, 2]",
                "ListEnd"
            ]
        );
        assert_eq!(
            events("{\"a\":1}\r\n{\"b\n{\"c\":2}"),
            ["{\"a\":1}", "{\"b", "{\"c\":2}"]
        );
        assert_eq!(
            events("{\n\"a\":1\n}\n{\"b\":2}"),
            ["{\n\"a\":1\n}", "{\"b\":2}"]
        );
        assert_eq!(
            events("[1]\n[2]"),
            ["ListStart", "1", "ListEnd", "ListStart", "2", "ListEnd"]
        );
        assert_eq!(events(""), Vec::<String>::new());
        assert_eq!(events("}x"), ["}", "x"]);
    }

    #[test]
    fn reports_the_end_within_a_value_or_a_list() {
        assert_eq!(
            events("[{\"a\":1},{\"b\":"),
            ["ListStart", "{\"a\":1}", "Truncated"]
        );
        assert_eq!(events("[1,"), ["ListStart", "1", "Truncated"]);
        assert_eq!(events("{\"a"), ["Truncated"]);
    }

    #[test]
    fn skips_values_that_exceed_a_limit() {
        let long = format!("[\"{}\",1]", "x".repeat(200));
        assert_eq!(events(&long), ["ListStart", "TooLarge", "1", "ListEnd"]);
        let many = format!("[[{}1],2]", "1,".repeat(30));
        assert_eq!(events(&many), ["ListStart", "TooLarge", "2", "ListEnd"]);
        let line = format!("{{}}\n{{\"a\":\"{}\"}}\n{{}}", "x".repeat(200));
        assert_eq!(events(&line), ["{}", "TooLarge", "{}"]);
    }
}
