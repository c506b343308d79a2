//! Limits on the content of one request, derived from the message descriptors.
//!
//! An empty message takes two bytes on the wire and two hundred in memory, and compressed it
//! takes almost nothing on the wire. A limit on a request's bytes alone would let a small
//! request allocate a lot of memory before it is rejected. Therefore every repeated field,
//! every map, every `google.protobuf.Struct`, `Value` and `ListValue`, and every recursive
//! message has a limit, which is checked in one pass over the encoded bytes before they are
//! decoded. The limits are derived from the descriptors, so that a new field is limited
//! automatically.
//!
//! | part of a request | limit |
//! |---|---|
//! | elements of a repeated field, entries of a map | the field's option `decode_limit`, or [`DEFAULT_MAX_ELEMENTS`], in the whole request |
//! | values in all `Struct`, `Value` and `ListValue` fields | [`NewMessage::MAX_VALUES_PER_SAVE`], by weight |
//! | nested objects and lists in one of them | [`Metadata::MAX_DEPTH`] |
//! | nested messages of any type | [`MAX_MESSAGE_DEPTH`] |

mod scan;
mod table;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use prost::Name;
use prost_reflect::DescriptorPool;

use self::table::Tables;
pub(crate) use self::table::UnsupportedField;
#[cfg(doc)]
use crate::domain::{Metadata, NewMessage};

/// Limit on the elements of a repeated field that has no option `decode_limit`.
pub(super) const DEFAULT_MAX_ELEMENTS: usize = 1_000;

/// Limit on the depth of nested messages. Prost's decoder stops at 100, where it also
/// rejects unknown fields, and reports both as malformed bytes.
pub(super) const MAX_MESSAGE_DEPTH: usize = 99;

/// Reason for which a request is rejected before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DecodeRejection {
    /// The bytes are not an encoded message.
    Malformed {
        /// Description, with the names of messages and fields and without their values.
        cause: String,
    },
    /// A call of a method that takes one request contains another one.
    SecondRequest,
    /// A repeated field, or all values together, exceed their limit.
    TooManyElements {
        /// Path of the field in which the limit was exceeded.
        field: String,
        /// Unit that was counted.
        counted: Counted,
        /// The limit for one request.
        max: usize,
    },
    /// A field is nested too deeply.
    TooDeep {
        /// Path of the field.
        field: String,
        /// Unit of the nesting.
        nested: Counted,
        /// The limit.
        max: usize,
    },
    /// The limits of the message type are not known: a bug. Nothing is decoded without them.
    LimitsUnknown,
}

/// Unit of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Elements of a repeated field, or nested messages.
    Elements,
    /// Values, or levels of objects and lists, of JSON.
    Values,
}

/// Error of descriptors for which no limits can be derived.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsupportedContract {
    /// The lookup uses simple names, which are the only names that are known without
    /// allocating.
    #[error("two request or response types are named {0}")]
    SameName(String),
    /// A field that the check does not support.
    #[error(transparent)]
    Field(#[from] UnsupportedField),
}

/// Limits of the messages that the methods of a contract exchange.
#[derive(Debug)]
pub(crate) struct DecodeLimits {
    by_name: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    package: String,
    /// `None` if the message cannot exceed any limit, or is only ever a response.
    tables: Option<Tables>,
    direction: Direction,
}

/// Use of a message in the methods of a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The only request of a call.
    Request,
    /// One of a stream of requests.
    StreamedRequest,
    /// A response, which only a client decodes.
    Response,
}

impl DecodeLimits {
    /// Derives the limits of every request type of the services in `pool`. Response types have
    /// none: a client that uses this crate trusts its server.
    ///
    /// # Errors
    /// Fails if the descriptors contain a field for which no limit can be derived.
    pub(crate) fn of_services(pool: &DescriptorPool) -> Result<Self, UnsupportedContract> {
        let mut messages = BTreeMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let (request, response) = (method.input(), method.output());
                messages
                    .entry(response.full_name().to_owned())
                    .or_insert((response, Direction::Response));
                let direction = if method.is_client_streaming() {
                    Direction::StreamedRequest
                } else {
                    Direction::Request
                };
                messages.insert(request.full_name().to_owned(), (request, direction));
            }
        }
        let mut by_name = HashMap::new();
        for (message, direction) in messages.into_values() {
            let entry = Entry {
                package: message.package_name().to_owned(),
                tables: match direction {
                    Direction::Request | Direction::StreamedRequest => Tables::of(&message)?,
                    Direction::Response => None,
                },
                direction,
            };
            let name = message.name().to_owned();
            if by_name.insert(name, entry).is_some() {
                return Err(UnsupportedContract::SameName(message.name().to_owned()));
            }
        }
        Ok(Self { by_name })
    }

    /// Returns the use of the messages of type `M`.
    ///
    /// # Errors
    /// Fails if `M` is not a message of the contract.
    pub(crate) fn direction_of<M: Name>(&self) -> Result<Direction, DecodeRejection> {
        let entry = self.by_name.get(M::NAME);
        let entry = entry.filter(|entry| entry.package == M::PACKAGE);
        entry
            .map(|entry| entry.direction)
            .ok_or(DecodeRejection::LimitsUnknown)
    }

    /// Checks the encoded form of a message of type `M`.
    ///
    /// Malformed bytes are not an error of this check: the decoder, which stops at the same
    /// position, reports them.
    ///
    /// # Errors
    /// Fails if the message exceeds a limit, or its limits are not known.
    pub(crate) fn check<M: Name>(&self, encoded: &[u8]) -> Result<(), DecodeRejection> {
        match self.by_name.get(M::NAME) {
            Some(entry) if entry.package == M::PACKAGE => match &entry.tables {
                Some(tables) => scan::check(tables, encoded),
                None => Ok(()),
            },
            _ => Err(DecodeRejection::LimitsUnknown),
        }
    }
}
