use protobuf_wire::{self as wire, Malformed, WireType};

use super::{
    Counted, DecodeRejection, MAX_MESSAGE_DEPTH,
    table::{Field, FieldContent, Table, Tables},
};
use crate::domain::Metadata;

/// Checks an encoded request.
///
/// # Errors
/// Fails if the request exceeds a limit. Malformed bytes are not an error: the decoder stops at
/// the same position, and has then allocated at most what was counted here.
pub(super) fn check(tables: &Tables, mut bytes: &[u8]) -> Result<(), DecodeRejection> {
    let mut scan = Scan {
        tables,
        counts: vec![0; tables.counters.len()],
    };
    match scan.message(&tables.tables[0], &mut bytes, 0, Depth::default()) {
        Ok(()) | Err(Stop::Malformed) => Ok(()),
        Err(Stop::Exceeded(exceeded)) => Err(exceeded.into_rejection()),
    }
}

/// A pass over one request.
struct Scan<'a> {
    tables: &'a Tables,
    /// Sum of each counter's weights up to the current field.
    counts: Vec<usize>,
}

/// Number of messages, and of JSON objects and lists, around the current field.
#[derive(Clone, Copy, Default)]
struct Depth {
    messages: usize,
    json_levels: usize,
}

/// Reason for which a scan ends early.
enum Stop {
    Malformed,
    Exceeded(Box<Exceeded>),
}

/// A limit that was exceeded, and the path of the field.
struct Exceeded {
    limit: Limit,
    /// Steps from the current message to the field, the innermost first.
    steps: Vec<String>,
}

enum Limit {
    Elements(Counted, usize),
    Depth(Counted, usize),
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Limit> for Stop {
    fn from(limit: Limit) -> Self {
        Self::Exceeded(Box::new(Exceeded {
            limit,
            steps: Vec::new(),
        }))
    }
}

impl Stop {
    /// Extends the path by the field of an outer message that was being read, `at` bytes into it.
    fn inside(mut self, table: &Table, message: &[u8], at: usize) -> Self {
        if let Self::Exceeded(exceeded) = &mut self {
            // For a field with too many elements, the path names the whole field.
            let is_whole_field =
                exceeded.steps.is_empty() && matches!(exceeded.limit, Limit::Elements(..));
            let step = step(table, message, at, is_whole_field);
            exceeded.steps.extend(step);
        }
        self
    }
}

impl Exceeded {
    fn into_rejection(mut self) -> DecodeRejection {
        self.steps.reverse();
        let field = self.steps.join(".");
        match self.limit {
            Limit::Elements(counted, max) => DecodeRejection::TooManyElements {
                field,
                counted,
                max,
            },
            Limit::Depth(nested, max) => DecodeRejection::TooDeep { field, nested, max },
        }
    }
}

impl Scan<'_> {
    /// Passes over the message that ends where `rest` bytes are left.
    fn message(
        &mut self,
        table: &Table,
        bytes: &mut &[u8],
        rest: usize,
        depth: Depth,
    ) -> Result<(), Stop> {
        let message = *bytes;
        // Prost notices only afterwards that a field extends beyond its message. If the
        // scan ended with the message, it would not count what is in that field.
        while bytes.len() > rest {
            let before = message.len() - bytes.len();
            self.field(table, bytes, depth)
                .map_err(|stop| stop.inside(table, message, before))?;
        }
        if bytes.len() == rest {
            Ok(())
        } else {
            Err(Stop::Malformed)
        }
    }

    /// Passes over one field and counts what is in it.
    fn field(&mut self, table: &Table, bytes: &mut &[u8], depth: Depth) -> Result<(), Stop> {
        let (number, wire_type) = wire::read_key(bytes)?;
        let Some(field) = table.field(number) else {
            return Ok(wire::skip_value(number, wire_type, bytes)?);
        };
        if let FieldContent::Scalar(element) = field.content
            && element == wire_type
        {
            self.count(field, 1)?;
            return Ok(wire::skip_value(number, wire_type, bytes)?);
        }
        if wire_type != WireType::LengthDelimited {
            return Err(Stop::Malformed);
        }
        let length = wire::read_length(bytes)?;
        match field.content {
            FieldContent::Message(inner) => {
                self.count(field, 1)?;
                let tables = self.tables;
                let inner = &tables.tables[inner];
                let depth = depth.inside(inner)?;
                self.message(inner, bytes, bytes.len() - length, depth)
            }
            FieldContent::Leaf => {
                self.count(field, 1)?;
                *bytes = &bytes[length..];
                Ok(())
            }
            FieldContent::Scalar(element) => {
                self.count(field, wire::packed_count(element, &bytes[..length]))?;
                *bytes = &bytes[length..];
                Ok(())
            }
        }
    }

    fn count(&mut self, field: &Field, occurrences: usize) -> Result<(), Limit> {
        let Some((index, weight)) = field.counted else {
            return Ok(());
        };
        let (count, counter) = (&mut self.counts[index], &self.tables.counters[index]);
        *count += weight * occurrences;
        if *count > counter.max {
            return Err(Limit::Elements(counter.counted, counter.max));
        }
        Ok(())
    }
}

impl Depth {
    /// Depth of the fields of a message whose own depth this is.
    fn inside(self, message: &Table) -> Result<Self, Limit> {
        let depth = Self {
            messages: self.messages + 1,
            json_levels: self.json_levels + usize::from(message.is_json_level),
        };
        if depth.json_levels > Metadata::MAX_DEPTH {
            return Err(Limit::Depth(Counted::Values, Metadata::MAX_DEPTH));
        }
        if depth.messages > MAX_MESSAGE_DEPTH {
            return Err(Limit::Depth(Counted::Elements, MAX_MESSAGE_DEPTH));
        }
        Ok(depth)
    }
}

/// Step of a path to the field that begins `at` bytes into a message. `None` inside a JSON
/// value, whose own path is precise enough.
fn step(table: &Table, message: &[u8], at: usize, is_whole_field: bool) -> Option<String> {
    if table.is_json {
        return None;
    }
    let (number, _) = wire::read_key(&mut &message[at..]).ok()?;
    let field = table.field(number)?;
    if is_whole_field || !field.is_list {
        return Some(field.name.clone());
    }
    let index = occurrences(message, at, number);
    Some(format!("{}[{index}]", field.name))
}

/// Number of occurrences of a field in the first `end` bytes of a message.
fn occurrences(message: &[u8], end: usize, number: u32) -> usize {
    let (mut bytes, mut found) = (message, 0);
    while message.len() - bytes.len() < end {
        let Ok((next, wire_type)) = wire::read_key(&mut bytes) else {
            break;
        };
        if wire::skip_value(next, wire_type, &mut bytes).is_err() {
            break;
        }
        found += usize::from(next == number);
    }
    found
}
