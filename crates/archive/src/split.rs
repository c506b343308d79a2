//! Splits a file into elements that are parsed one at a time, independent of the pieces
//! in which the file arrives. The splitter only finds the end of each JSON value; errors
//! within a value are found when the element is parsed.

use std::mem;

use bytes::{Buf as _, Bytes};

use super::error::{LineError, UNKNOWN_MEMBER};
use domain::{InvalidValue, SizeLimit};

/// Member of a document whose list items are separate elements.
const LIST: &str = "messages";

/// Bytes that some editors put at the beginning of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Upper bound on a member's name in bytes, sufficient for every name of the format with
/// all its characters escaped.
const MAX_NAME_BYTES: usize = 128;

/// JSON value that is parsed as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// Number of the line that the value begins on, 1 or more.
    pub(super) line: u64,
    pub(super) kind: ElementKind,
    pub(super) json: Vec<u8>,
}

/// Position of an element in the structure of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ElementKind {
    /// A line of a JSON Lines file.
    Line,
    /// A member of a JSON document.
    Member {
        /// Name of the member as a JSON string.
        name: Vec<u8>,
    },
    /// An item of a JSON document's list of messages.
    ListItem,
}

/// State machine that consumes a file byte by byte.
#[derive(Debug)]
pub(super) struct Splitter {
    /// Rest of the piece that was pushed last.
    pending: Bytes,
    /// Rest of the byte order mark that may still follow.
    mark: &'static [u8],
    /// Number of the current line.
    line: u64,
    state: State,
    /// Bytes of the current name or element.
    buffer: Vec<u8>,
    /// Number of the line that the buffer's content begins on.
    buffer_line: u64,
    /// Upper bound on an element in bytes.
    max: usize,
    /// Whether the bound is that of messages, which a setting raises.
    is_max_of_messages: bool,
    nesting: Nesting,
    /// Whether the document's list has begun.
    has_list: bool,
    /// Whether the file may turn out to be JSON Lines after its first object.
    may_be_lines: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// Within a JSON Lines file.
    Lines,
    /// Before the document's opening brace.
    Start,
    /// Before a member's name, or the document's end.
    FirstName,
    /// Before a member's name, after a comma.
    NextName,
    InName,
    /// Before the colon after a member's name.
    Colon {
        name: Vec<u8>,
    },
    /// Before a member's value.
    Value {
        name: Vec<u8>,
    },
    InValue(ElementKind),
    AfterValue(ElementKind),
    /// Before an item, or the list's end.
    FirstItem,
    /// Before an item, after a comma.
    NextItem,
    /// After the document's closing brace.
    End,
}

/// Position within the brackets and strings of a JSON value.
#[derive(Debug, Default)]
struct Nesting {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Advances by one byte, and returns whether it ends the value before it: a comma or
    /// closing bracket outside of the value's own brackets and strings.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return false;
        }
        match byte {
            b',' | b'}' | b']' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        false
    }
}

impl Splitter {
    /// Splits a JSON Lines file into lines of at most `max` bytes.
    pub(super) fn lines(max: usize) -> Self {
        Self::new(State::Lines, max)
    }

    /// Splits a JSON document into its members, and the list of messages into its items.
    /// No element may have more than `max` bytes.
    pub(super) fn document(max: usize) -> Self {
        Self::new(State::Start, max)
    }

    /// Splits a file of either format: if an object without the list of messages is
    /// followed by more, it was the first line of a JSON Lines file.
    pub(super) fn document_or_lines(max: usize) -> Self {
        Self {
            may_be_lines: true,
            ..Self::document(max)
        }
    }

    fn new(state: State, max: usize) -> Self {
        Self {
            pending: Bytes::new(),
            mark: BYTE_ORDER_MARK,
            line: 1,
            state,
            buffer: Vec::new(),
            buffer_line: 1,
            max,
            is_max_of_messages: false,
            nesting: Nesting::default(),
            has_list: false,
            may_be_lines: false,
        }
    }

    /// Changes the upper bound on the following elements, in bytes, to that of messages.
    pub(super) fn begin_messages(&mut self, max: usize) {
        self.max = max;
        self.is_max_of_messages = true;
    }

    /// Adds the next piece of the file. [`Self::next`] must have consumed the previous one.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.pending = piece;
    }

    /// Returns the next complete element, or `None` if another piece is needed.
    pub(super) fn next(&mut self) -> Result<Option<Element>, LineError> {
        while let Some(&byte) = self.pending.first() {
            if let Some((first, rest)) = self.mark.split_first() {
                self.mark = if byte == *first { rest } else { &[] };
                if byte == *first {
                    self.pending.advance(1);
                    continue;
                }
            }
            let (element, is_consumed) = self.step(byte)?;
            if is_consumed {
                self.line += u64::from(byte == b'\n');
                self.pending.advance(1);
            }
            if element.is_some() {
                return Ok(element);
            }
        }
        Ok(None)
    }

    /// Ends the file, and returns the last line if no line break followed it.
    pub(super) fn end(&mut self) -> Result<Option<Element>, LineError> {
        match self.state {
            State::Lines => Ok(self.take_line()),
            State::End => Ok(None),
            _ => Err(self.error("is incomplete: the file ends within the document")),
        }
    }

    /// Processes one byte. Returns the element that it completes, and whether the byte is
    /// consumed; otherwise it is processed again in the new state.
    fn step(&mut self, byte: u8) -> Result<(Option<Element>, bool), LineError> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match &mut self.state {
            State::Lines if byte == b'\n' => return Ok((self.take_line(), true)),
            State::Lines if self.buffer.is_empty() && is_space => {}
            State::Lines => self.append(byte)?,
            State::InName => {
                if self.buffer.len() == MAX_NAME_BYTES {
                    return Err(self.error(UNKNOWN_MEMBER));
                }
                self.append(byte)?;
                self.nesting.ends_before(byte);
                if !self.nesting.in_string {
                    let name = mem::take(&mut self.buffer);
                    self.state = State::Colon { name };
                }
            }
            State::InValue(kind) => {
                if self.nesting.ends_before(byte) {
                    let kind = kind.clone();
                    self.state = State::AfterValue(kind.clone());
                    return Ok((Some(self.take_element(kind)), false));
                }
                self.append(byte)?;
            }
            _ if is_space => {}
            State::End if self.may_be_lines && !self.has_list => {
                self.state = State::Lines;
                return Ok((None, false));
            }
            State::Start if byte == b'{' => self.state = State::FirstName,
            State::FirstName | State::NextName if byte == b'"' => {
                self.begin(State::InName);
                return Ok((None, false));
            }
            State::Colon { name } if byte == b':' => {
                let name = mem::take(name);
                self.state = State::Value { name };
            }
            State::Value { name } if byte == b'[' && is_list(name) => {
                if mem::replace(&mut self.has_list, true) {
                    return Err(self.error("has a second list of messages"));
                }
                self.state = State::FirstItem;
            }
            State::Value { name } => {
                let name = mem::take(name);
                self.begin(State::InValue(ElementKind::Member { name }));
                return Ok((None, false));
            }
            State::AfterValue(ElementKind::Member { .. }) if byte == b',' => {
                self.state = State::NextName;
            }
            State::FirstName | State::AfterValue(ElementKind::Member { .. }) if byte == b'}' => {
                self.state = State::End;
            }
            State::AfterValue(ElementKind::ListItem) if byte == b',' => {
                self.state = State::NextItem;
            }
            State::FirstItem | State::AfterValue(ElementKind::ListItem) if byte == b']' => {
                let name = LIST.into();
                self.state = State::AfterValue(ElementKind::Member { name });
            }
            State::FirstItem | State::NextItem => {
                self.begin(State::InValue(ElementKind::ListItem));
                return Ok((None, false));
            }
            _ => return Err(self.error("is not valid JSON")),
        }
        Ok((None, true))
    }

    /// Begins a name or a value.
    fn begin(&mut self, state: State) {
        self.state = state;
        self.nesting = Nesting::default();
        self.buffer_line = self.line;
    }

    fn append(&mut self, byte: u8) -> Result<(), LineError> {
        if self.buffer.is_empty() {
            self.buffer_line = self.line;
        }
        if self.buffer.len() == self.max {
            let reason = format!("must have at most {} bytes", self.max);
            let reason = if self.is_max_of_messages {
                InvalidValue::exceeds(SizeLimit::Request, reason)
            } else {
                InvalidValue::new(reason)
            };
            return Err(LineError::new(self.buffer_line, reason));
        }
        self.buffer.push(byte);
        Ok(())
    }

    /// Takes the buffered line, unless it is blank.
    fn take_line(&mut self) -> Option<Element> {
        (!self.buffer.is_empty()).then(|| self.take_element(ElementKind::Line))
    }

    fn take_element(&mut self, kind: ElementKind) -> Element {
        Element {
            line: self.buffer_line,
            kind,
            json: mem::take(&mut self.buffer),
        }
    }

    fn error(&self, reason: &'static str) -> LineError {
        LineError::new(self.line, InvalidValue::new(reason))
    }
}

/// Whether a member's name, given as a JSON string, is that of the list of messages.
fn is_list(name: &[u8]) -> bool {
    serde_json::from_slice::<String>(name).is_ok_and(|name| name == LIST)
}
