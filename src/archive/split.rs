//! Cuts a file into the parts that are understood one at a time, whatever pieces
//! it comes in. It knows of JSON no more than where a value ends: what is wrong
//! within one is found by whoever reads it.

use std::mem;

use bytes::{Buf as _, Bytes};

use super::{BadLine, read::UNKNOWN_MEMBER};
use crate::domain::InvalidValue;

/// The member of a document whose items are parts of their own.
const LIST: &str = "messages";

/// What some editors begin a text with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How long a member's name can be, each character of it escaped.
const LONGEST_NAME: usize = 128;

/// A value, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The line that it begins on, from 1.
    pub(super) line: u64,
    pub(super) place: Place,
    pub(super) json: Vec<u8>,
}

/// What a value is of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A line of its own.
    Line,
    /// The member of a document, with its name as JSON.
    Member(Vec<u8>),
    /// An item of the document's list.
    Item,
}

#[derive(Debug)]
pub(super) struct Splitter {
    pending: Bytes,
    /// How much of a byte order mark there may still be.
    mark: &'static [u8],
    line: u64,
    state: State,
    part: Vec<u8>,
    part_line: u64,
    max: usize,
    nesting: Nesting,
    has_list: bool,
    may_be_lines: bool,
}

#[derive(Clone, Debug)]
enum State {
    Lines,
    /// A document has not begun.
    Start,
    /// Before a member's name; with `false`, the document may end instead.
    Name(bool),
    /// Within a member's name.
    InName,
    Colon(Vec<u8>),
    Value(Vec<u8>),
    InValue(Place),
    AfterValue(Place),
    /// Before an item; with `false`, the list may end instead.
    ItemStart(bool),
    End,
}

/// How deep within a value the reading is.
#[derive(Debug, Default)]
struct Nesting {
    depth: u32,
    in_text: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Whether this byte, outside of all brackets and texts, ends the value before
    /// it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_text {
            self.in_text = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return false;
        }
        match byte {
            b',' | b'}' | b']' if self.depth == 0 => return true,
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        false
    }
}

impl Splitter {
    /// Cuts a file into lines.
    pub(super) fn lines(max: usize) -> Self {
        Self::new(State::Lines, max)
    }

    /// Cuts a document into its members, and one of them into its items. No part
    /// may have more bytes than `max`.
    pub(super) fn document(max: usize) -> Self {
        Self::new(State::Start, max)
    }

    /// The same, but where a document without a list is followed by more, it was the
    /// first of several lines.
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
            part: Vec::new(),
            part_line: 1,
            max,
            nesting: Nesting::default(),
            has_list: false,
            may_be_lines: false,
        }
    }

    /// From here on, parts may have so many bytes.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes the next piece of the file. The one before must be used up.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.pending = piece;
    }

    /// The next part that is complete.
    pub(super) fn next(&mut self) -> Result<Option<Part>, BadLine> {
        while let Some(&byte) = self.pending.first() {
            if let Some((first, rest)) = self.mark.split_first() {
                self.mark = if byte == *first { rest } else { &[] };
                if byte == *first {
                    self.pending.advance(1);
                    continue;
                }
            }
            let (part, is_used) = self.step(byte)?;
            if is_used {
                self.line += u64::from(byte == b'\n');
                self.pending.advance(1);
            }
            if part.is_some() {
                return Ok(part);
            }
        }
        Ok(None)
    }

    /// Ends the file. What is left of it may be a last line.
    pub(super) fn end(&mut self) -> Result<Option<Part>, BadLine> {
        match self.state {
            State::Lines => Ok(self.full_line()),
            State::End => Ok(None),
            _ => Err(self.wrong("the file ends too early")),
        }
    }

    /// What a byte does, and whether it is used up.
    fn step(&mut self, byte: u8) -> Result<(Option<Part>, bool), BadLine> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match &mut self.state {
            State::Lines if byte == b'\n' => return Ok((self.full_line(), true)),
            State::Lines if self.part.is_empty() && is_space => {}
            State::Lines => self.keep(byte)?,
            State::InName => {
                if self.part.len() == LONGEST_NAME {
                    return Err(self.wrong(UNKNOWN_MEMBER));
                }
                self.keep(byte)?;
                self.nesting.ends_before(byte);
                if !self.nesting.in_text {
                    self.state = State::Colon(mem::take(&mut self.part));
                }
            }
            State::InValue(place) => {
                if self.nesting.ends_before(byte) {
                    let place = place.clone();
                    self.state = State::AfterValue(place.clone());
                    return Ok((Some(self.full(place)), false));
                }
                self.keep(byte)?;
            }
            _ if is_space => {}
            State::End if self.may_be_lines && !self.has_list => {
                self.state = State::Lines;
                return Ok((None, false));
            }
            State::Start if byte == b'{' => self.state = State::Name(false),
            State::Name(_) if byte == b'"' => {
                self.state = State::InName;
                self.begin();
                return Ok((None, false));
            }
            State::Colon(name) if byte == b':' => self.state = State::Value(mem::take(name)),
            State::Value(name) if byte == b'[' && is_list(name) => {
                if mem::replace(&mut self.has_list, true) {
                    return Err(self.wrong("has a second list of messages"));
                }
                self.state = State::ItemStart(false);
            }
            State::Value(name) => {
                self.state = State::InValue(Place::Member(mem::take(name)));
                self.begin();
                return Ok((None, false));
            }
            State::AfterValue(Place::Member(_)) if byte == b',' => self.state = State::Name(true),
            State::Name(false) | State::AfterValue(Place::Member(_)) if byte == b'}' => {
                self.state = State::End;
            }
            State::AfterValue(Place::Item) if byte == b',' => self.state = State::ItemStart(true),
            State::ItemStart(false) | State::AfterValue(Place::Item) if byte == b']' => {
                self.state = State::AfterValue(Place::Member(LIST.into()));
            }
            State::ItemStart(_) => {
                self.state = State::InValue(Place::Item);
                self.begin();
                return Ok((None, false));
            }
            _ => return Err(self.wrong("is not valid JSON")),
        }
        Ok((None, true))
    }

    fn begin(&mut self) {
        self.nesting = Nesting::default();
        self.part_line = self.line;
    }

    fn keep(&mut self, byte: u8) -> Result<(), BadLine> {
        if self.part.is_empty() {
            self.part_line = self.line;
        }
        if self.part.len() == self.max {
            let reason = InvalidValue::new(format!("must have at most {} bytes", self.max));
            return Err(BadLine::new(self.part_line, "", reason));
        }
        self.part.push(byte);
        Ok(())
    }

    fn full_line(&mut self) -> Option<Part> {
        (!self.part.is_empty()).then(|| self.full(Place::Line))
    }

    fn full(&mut self, place: Place) -> Part {
        Part {
            line: self.part_line,
            place,
            json: mem::take(&mut self.part),
        }
    }

    fn wrong(&self, why: &'static str) -> BadLine {
        BadLine::new(self.line, "", InvalidValue::new(why))
    }
}

/// Whether a member's name, as JSON, is that of the list.
fn is_list(name: &[u8]) -> bool {
    serde_json::from_slice::<String>(name).is_ok_and(|name| name == LIST)
}
