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
    Value(Element),
    /// A value that exceeds a limit. It has been skipped.
    TooLarge(ExceededLimit),
    /// The file ends within a value or within a list.
    Truncated,
}

/// Text of a value, which may be invalid.
#[derive(Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) text: Vec<u8>,
    /// Number of values in it, at least; objects and lists count more than once.
    pub(crate) values: usize,
    /// Number of brackets that are open at the same time.
    pub(crate) depth: usize,
}

/// Limit that a value exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExceededLimit {
    Bytes,
    Values,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// No value of the top level has been read.
    Unknown,
    /// The first line was a value, or began as one that cannot continue in the second line. Each line
    /// is read by itself from now on, so that an invalid one does not affect the next one.
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
    max_depth: usize,
    has_line_break: bool,
    /// Last byte that is no white space, outside of texts.
    last: u8,
}

impl Scan {
    fn exceeded(&self, bytes: usize, limits: ElementLimits) -> Option<ExceededLimit> {
        if bytes > limits.bytes {
            Some(ExceededLimit::Bytes)
        } else {
            (self.values > limits.values).then_some(ExceededLimit::Values)
        }
    }

    fn element(&self, text: Vec<u8>) -> Element {
        Element {
            text,
            values: self.values,
            depth: self.max_depth,
        }
    }

    /// Whether an object at the beginning of the next line, which is read next, can belong to the value.
    fn may_continue_with_object(&self) -> bool {
        !self.is_in_text && matches!(self.last, b'[' | b':' | b',')
    }

    /// Adds a byte. Returns whether the value ends before it (`Some(false)`) or with it
    /// (`Some(true)`).
    fn push(&mut self, byte: u8) -> Option<bool> {
        self.has_line_break |= byte == b'\n';
        if !byte.is_ascii_whitespace() {
            self.last = byte;
        }
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
                self.max_depth = self.max_depth.max(self.depth);
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
                b'{' => return self.value().map(Some),
                // No value that takes several lines begins so.
                _ if !self.is_in_list && self.layout == Layout::Unknown => {
                    self.layout = Layout::Lines;
                    return self.line().map(Some);
                }
                _ => return self.value().map(Some),
            }
        }
    }

    fn line(&mut self) -> io::Result<Event> {
        let (mut line, mut scan, mut exceeded) = (Vec::new(), Scan::default(), None);
        while let Some(byte) = self.byte()? {
            self.position += 1;
            if byte == b'\n' {
                break;
            }
            scan.push(byte);
            exceeded = exceeded.or(scan.exceeded(line.len() + 1, self.limits));
            if exceeded.is_some() {
                line = Vec::new();
            } else {
                line.push(byte);
            }
        }
        Ok(match exceeded {
            Some(limit) => Event::TooLarge(limit),
            None => Event::Value(scan.element(line)),
        })
    }

    fn value(&mut self) -> io::Result<Event> {
        let (mut scan, mut value, mut exceeded) = (Scan::default(), Vec::new(), None);
        let is_first = !self.is_in_list && self.layout == Layout::Unknown;
        // Where the second line begins, if it may be a value by itself.
        let mut second_line = None;
        let is_complete = loop {
            let Some(byte) = self.byte()? else {
                break scan.depth == 0 && !scan.is_in_text;
            };
            if byte == b'\n' && is_first && exceeded.is_none() {
                let is_second = !scan.has_line_break;
                if self.is_before(b'{')? {
                    let begins_value = scan.is_in_text || !scan.may_continue_with_object();
                    if is_second && begins_value {
                        self.position += 1;
                        self.layout = Layout::Lines;
                        return Ok(Event::Value(scan.element(value)));
                    }
                    if let Some(start) = second_line
                        && begins_value
                    {
                        return Ok(self.reread(value, start));
                    }
                    if is_second {
                        second_line = Some(value.len() + 1);
                    }
                }
            }
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
            exceeded = exceeded.or(scan.exceeded(value.len() + 1, self.limits));
            if exceeded.is_some() {
                value = Vec::new();
            } else {
                value.push(byte);
            }
            if end == Some(true) {
                break true;
            }
        };
        if let Some(start) = second_line
            && !is_complete
            && exceeded.is_none()
        {
            return Ok(self.reread(value, start));
        }
        if is_first {
            let is_line = is_complete && !scan.has_line_break && self.is_before_line_break()?;
            self.layout = if is_line {
                Layout::Lines
            } else {
                Layout::Values
            };
        }
        Ok(match (exceeded, is_complete) {
            (Some(limit), _) => Event::TooLarge(limit),
            (None, true) => Event::Value(scan.element(value)),
            (None, false) => {
                self.is_in_list = false;
                Event::Truncated
            }
        })
    }

    /// Whether the byte after the current one is `expected`.
    fn is_before(&mut self, expected: u8) -> io::Result<bool> {
        while self.buffer.len() <= self.position + 1 {
            if !self.fill()? {
                return Ok(false);
            }
        }
        Ok(self.buffer[self.position + 1] == expected)
    }

    /// Returns the first line of a value that turned out to be several lines. The lines after it are read
    /// again, beginning at `start`.
    fn reread(&mut self, mut value: Vec<u8>, start: usize) -> Event {
        self.buffer.splice(..self.position, value.drain(start..));
        self.position = 0;
        self.layout = Layout::Lines;
        let mut scan = Scan::default();
        for byte in &value {
            scan.push(*byte);
        }
        Event::Value(scan.element(value))
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
                Event::Value(element) => String::from_utf8(element.text).unwrap(),
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
        assert_eq!(events("}x"), ["}x"]);
    }

    #[test]
    fn a_first_line_that_is_broken_does_not_affect_the_next_ones() {
        let rest = ["{\"b\":2}", "{\"c\":[3]}"];
        for first in [
            "{\"a\":\"x",
            "{\"a\":{\"x\":1",
            "{\"a\":[{\"x\":\"y\"}",
            "{\"a\":[",
            "{\"a\":",
            "{\"a\":1,",
            "{",
            "\"a\":1}]}",
            "# \"comment",
        ] {
            let file = format!("{first}\n{}\n{}\n", rest[0], rest[1]);
            let found: Vec<_> = events(&file)
                .iter()
                .map(|it| it.trim().to_owned())
                .collect();
            assert_eq!(found, [first, rest[0], rest[1]]);
        }
        assert_eq!(events("{\"a\":[\n{\"b\":2}"), ["{\"a\":[\n", "{\"b\":2}"]);
        // Documents of several lines.
        for document in [
            "{\"a\":[\n{\"b\":2},\n{\"c\":3}\n]}",
            "{\"a\":\n{\"b\":[\n{}]}\n,\"c\":\n{}}",
            "{\"a\":\"x\ny\"}",
        ] {
            assert_eq!(events(document), [document]);
        }
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
        let expected = ["ListStart", "TooLarge(Bytes)", "1", "ListEnd"];
        assert_eq!(events(&long), expected);
        let many = format!("[[{}1],2]", "1,".repeat(30));
        let expected = ["ListStart", "TooLarge(Values)", "2", "ListEnd"];
        assert_eq!(events(&many), expected);
        let line = format!("{{}}\n{{\"a\":\"{}\"}}\n{{}}", "x".repeat(200));
        assert_eq!(events(&line), ["{}", "TooLarge(Bytes)", "{}"]);
        let line = format!("{{}}\n[{}1]\n{{}}", "1,".repeat(30));
        assert_eq!(events(&line), ["{}", "TooLarge(Values)", "{}"]);
    }
}
