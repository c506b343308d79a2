//! JSON as proto3 maps it, to and from protobuf's bytes, by the descriptors.
//!
//! Neither way makes objects of what it passes over: a list of two million numbers
//! is four megabytes of JSON, some thirty of protobuf, and more than a gigabyte as
//! messages that can be asked for their fields. So a request costs memory in
//! proportion to its bytes, and the services' own codec judges what is made of it.

mod encoder;
mod read;
mod scalar;
mod write;

use std::collections::HashSet;

use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};

pub(super) use self::{
    encoder::{Encoder, Refusal},
    write::{Malformed, write},
};

/// The messages that JSON has a form of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WellKnown {
    Timestamp,
    FieldMask,
    Struct,
    Value,
    List,
    Duration,
    Any,
}

impl WellKnown {
    pub(super) fn of(message: &MessageDescriptor) -> Option<Self> {
        Some(
            match message.full_name().strip_prefix("google.protobuf.")? {
                "Timestamp" => Self::Timestamp,
                "FieldMask" => Self::FieldMask,
                "Struct" => Self::Struct,
                "Value" => Self::Value,
                "ListValue" => Self::List,
                "Duration" => Self::Duration,
                "Any" => Self::Any,
                _ => return None,
            },
        )
    }
}

/// Says what a method has that cannot be served as JSON, so that it is noticed at
/// the start and not by a caller.
pub(super) fn check(method: &MethodDescriptor) -> Result<(), String> {
    use WellKnown::{Any, Duration, FieldMask};
    // Files are no JSON of this contract.
    if !method.is_client_streaming() {
        walk(&method.input(), &[Duration, Any], &mut HashSet::new())?;
    }
    if method.is_server_streaming() {
        return super::download::check(&method.output());
    }
    walk(&method.output(), &[FieldMask, Any], &mut HashSet::new())
}

fn walk(
    message: &MessageDescriptor,
    unserved: &[WellKnown],
    seen: &mut HashSet<String>,
) -> Result<(), String> {
    if !seen.insert(message.full_name().to_owned()) {
        return Ok(());
    }
    match WellKnown::of(message) {
        Some(known) if !unserved.contains(&known) => return Ok(()),
        None if !message.full_name().starts_with("google.protobuf.") => {}
        _ => return Err(format!("{} is not served", message.full_name())),
    }
    for field in message.fields() {
        match field.kind() {
            Kind::Message(inner) => walk(&inner, unserved, seen)?,
            // On the wire they stand together.
            Kind::Double | Kind::Int32 | Kind::Int64 | Kind::Bool | Kind::Enum(_)
                if field.is_list() =>
            {
                return Err(format!("{} is not served as a list", field.full_name()));
            }
            Kind::Double
            | Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Bool
            | Kind::String
            | Kind::Enum(_) => {}
            _ => return Err(format!("the type of {} is not served", field.full_name())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
