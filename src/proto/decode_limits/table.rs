use std::collections::HashMap;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, Value};
use protobuf_wire::WireType;

use super::{Counted, DEFAULT_MAX_ELEMENTS};
use crate::domain::{Metadata, NewMessage};

/// Field option with the number of elements that one request may contain of a field.
const DECODE_LIMIT: &str = "conversation_memory.v1.decode_limit";

/// Counter of the values in all JSON fields of a request.
const VALUES: usize = 0;

/// Fields of one request type that can exceed a limit. The request's own table is the first
/// one.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) tables: Vec<Table>,
    pub(super) counters: Vec<Counter>,
}

/// The fields of one message type that can be repeated or nested without a bound. All other
/// fields are skipped.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) fields: Vec<Field>,
    /// Whether the message is part of a JSON value. Its fields have no place in a path.
    pub(super) is_json: bool,
    /// Whether the message is an object or a list of a JSON value.
    pub(super) is_json_level: bool,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) is_list: bool,
    pub(super) content: FieldContent,
    /// Index of the counter to which each occurrence adds the weight.
    pub(super) counted: Option<(usize, usize)>,
}

/// Content of a field.
#[derive(Clone, Copy, Debug)]
pub(super) enum FieldContent {
    /// A message with fields that can be repeated or nested: the index of its table.
    Message(usize),
    /// A text, bytes, or a message of limited size.
    Leaf,
    /// A scalar of this wire type, which can be packed.
    Scalar(WireType),
}

/// Limit on the elements or values that are counted over the whole request.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) counted: Counted,
    pub(super) max: usize,
}

/// Error of a field that is encoded as a group.
#[derive(Debug, thiserror::Error)]
#[error("{0} is encoded as a group, which the check of limits does not support")]
pub(crate) struct UnsupportedField(String);

impl Tables {
    /// Derives the tables of a request type. `None` if no request of this type can exceed
    /// a limit.
    ///
    /// # Errors
    /// Fails if a field is encoded as a group.
    pub(super) fn of(request: &MessageDescriptor) -> Result<Option<Self>, UnsupportedField> {
        let mut builder = Builder::default();
        let root = builder.add(request)?;
        debug_assert_eq!(root, 0, "the request is added first");
        Ok(builder.finish())
    }
}

impl Table {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

struct Builder {
    indexes: HashMap<String, usize>,
    tables: Vec<Table>,
    counters: Vec<Counter>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            indexes: HashMap::new(),
            tables: Vec::new(),
            counters: vec![Counter {
                counted: Counted::Values,
                max: NewMessage::MAX_VALUES_PER_SAVE,
            }],
        }
    }
}

impl Builder {
    /// Adds the table of a message type, and those of all types that it contains.
    fn add(&mut self, message: &MessageDescriptor) -> Result<usize, UnsupportedField> {
        if let Some(index) = self.indexes.get(message.full_name()) {
            return Ok(*index);
        }
        let index = self.tables.len();
        self.indexes.insert(message.full_name().to_owned(), index);
        self.tables.push(Table {
            fields: Vec::new(),
            is_json: is_json(message),
            is_json_level: matches!(
                message.full_name(),
                "google.protobuf.Struct" | "google.protobuf.ListValue"
            ),
        });
        for field in message.fields() {
            let field = self.field(&field)?;
            self.tables[index].fields.push(field);
        }
        Ok(index)
    }

    fn field(&mut self, field: &FieldDescriptor) -> Result<Field, UnsupportedField> {
        if field.is_group() {
            return Err(UnsupportedField(field.full_name().to_owned()));
        }
        let content = match field.kind() {
            Kind::Message(message) => FieldContent::Message(self.add(&message)?),
            Kind::String | Kind::Bytes => FieldContent::Leaf,
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
                FieldContent::Scalar(WireType::SixtyFourBit)
            }
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
                FieldContent::Scalar(WireType::ThirtyTwoBit)
            }
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Bool
            | Kind::Enum(_) => FieldContent::Scalar(WireType::Varint),
        };
        let is_repeated = field.is_list() || field.is_map();
        let counted = match field.full_name() {
            "google.protobuf.Value.struct_value" => Some((VALUES, Metadata::OBJECT_WEIGHT)),
            _ if !is_repeated => None,
            _ if is_json(field.parent_message()) => Some((VALUES, 1)),
            _ => {
                self.counters.push(Counter {
                    counted: Counted::Elements,
                    max: max_elements(field),
                });
                Some((self.counters.len() - 1, 1))
            }
        };
        Ok(Field {
            number: field.number(),
            name: field.name().to_owned(),
            is_list: field.is_list(),
            content,
            counted,
        })
    }

    /// Removes all fields that cannot exceed a limit.
    fn finish(mut self) -> Option<Tables> {
        // A table is limited if none of its fields is counted and all its messages are
        // limited. What is left when no more are found are counted fields, recursive
        // messages, and what contains them.
        let mut limited = vec![false; self.tables.len()];
        loop {
            let can_skip = |field: &Field| match field.content {
                _ if field.counted.is_some() => false,
                FieldContent::Message(table) => limited[table],
                FieldContent::Leaf | FieldContent::Scalar(_) => true,
            };
            let next: Vec<bool> = self
                .tables
                .iter()
                .map(|table| table.fields.iter().all(can_skip))
                .collect();
            if next == limited {
                break;
            }
            limited = next;
        }
        for table in &mut self.tables {
            for field in &mut table.fields {
                if matches!(field.content, FieldContent::Message(inner) if limited[inner]) {
                    field.content = FieldContent::Leaf;
                }
            }
            table.fields.retain(|field| {
                field.counted.is_some() || matches!(field.content, FieldContent::Message(_))
            });
        }
        (!limited[0]).then_some(Tables {
            tables: self.tables,
            counters: self.counters,
        })
    }
}

/// Number of elements of a repeated field, or entries of a map, in one request.
fn max_elements(field: &FieldDescriptor) -> usize {
    let pool = field.parent_pool();
    let option = pool
        .get_extension_by_name(DECODE_LIMIT)
        .map(|extension| field.options().get_extension(&extension).into_owned());
    match option {
        Some(Value::U32(max)) if max > 0 => usize::try_from(max).unwrap_or(DEFAULT_MAX_ELEMENTS),
        _ => DEFAULT_MAX_ELEMENTS,
    }
}

fn is_json(message: &MessageDescriptor) -> bool {
    matches!(
        message.full_name(),
        "google.protobuf.Struct"
            | "google.protobuf.Struct.FieldsEntry"
            | "google.protobuf.Value"
            | "google.protobuf.ListValue"
    )
}
