//! A deserializer that tracks the path of the current field.
//!
//! Prost-reflect reads messages through serde. Its errors do not contain the path of the field,
//! and their texts may contain the value. This adapter is placed between prost-reflect and the
//! parser and follows the descriptors in parallel. It locates errors, rejects unknown and
//! repeated names, and adapts scalars to their fields before prost-reflect reads them. The
//! content of fields for arbitrary JSON is passed on unchanged.

use std::{cell::RefCell, fmt};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::{
    de::{
        DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    WellKnown,
    scalar::{Text, adapt, expected, is_integer, whole},
};
use crate::{error::FieldViolation, template::find_field};

/// Maximum number of characters of an unknown name that an error contains.
const MAX_NAME: usize = 64;

/// Part of the contract that describes a JSON value.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// A message.
    Message(MessageDescriptor),
    /// The whole value of a field: a list if the field is repeated.
    Field(FieldDescriptor),
    /// One element of a repeated field, or the value of a singular one.
    Element(FieldDescriptor),
    /// Arbitrary JSON, or a name that is not part of the contract.
    Opaque,
}

impl Slot {
    /// Replaces a field that is not repeated by its message or element.
    fn resolve(self) -> Self {
        let field = match self {
            Self::Field(field) if field.is_list() || field.is_map() => return Self::Field(field),
            Self::Field(field) | Self::Element(field) => field,
            other => return other,
        };
        match field.kind() {
            Kind::Message(message) => match WellKnown::of(&message) {
                None => Self::Message(message),
                Some(WellKnown::Any | WellKnown::Struct | WellKnown::Value | WellKnown::List) => {
                    Self::Opaque
                }
                Some(_) => Self::Element(field),
            },
            _ => Self::Element(field),
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Field(field) if field.is_list() => "must be a list".to_owned(),
            Self::Field(field) if !field.is_map() => expected(&field.kind()),
            Self::Element(field) => expected(&field.kind()),
            Self::Message(_) | Self::Field(_) | Self::Opaque => "must be an object".to_owned(),
        }
    }
}

/// Path to the value that is being read.
#[derive(Debug)]
pub(super) struct Tracker(RefCell<State>);

#[derive(Debug)]
struct State {
    steps: Vec<(Step, Slot)>,
    root: Slot,
    /// Rule that was violated; `None` if it follows from the slot.
    reason: Option<String>,
}

#[derive(Debug)]
enum Step {
    Name(String),
    Index(usize),
}

impl Tracker {
    /// Creates a tracker whose path starts at a message or at a field.
    pub(super) fn new(root: Slot) -> Self {
        let steps = match &root {
            Slot::Field(field) => vec![(Step::Name(field.name().to_owned()), root.clone())],
            _ => Vec::new(),
        };
        Self(RefCell::new(State {
            steps,
            root,
            reason: None,
        }))
    }

    /// Clears the path after the whole value has been read: an error after it belongs to no
    /// field.
    pub(super) fn leave_root(&self) {
        self.0.borrow_mut().steps.clear();
    }

    /// Describes the error at the current position.
    pub(super) fn violation(&self) -> FieldViolation {
        let reason = {
            let state = self.0.borrow();
            let slot = state.steps.last().map_or(&state.root, |(_, slot)| slot);
            state.reason.clone().unwrap_or_else(|| slot.expected())
        };
        self.violation_of(&reason)
    }

    /// Describes an error at the current position with the given reason.
    pub(super) fn violation_of(&self, reason: &str) -> FieldViolation {
        let mut path = String::new();
        for (step, _) in &self.0.borrow().steps {
            match step {
                Step::Name(name) if path.is_empty() => path.push_str(name),
                Step::Name(name) => path.extend([".", name]),
                Step::Index(index) => path.extend(["[", &index.to_string(), "]"]),
            }
        }
        if path.is_empty() {
            path.push_str("body");
        }
        FieldViolation::new(path, reason)
    }

    fn enter(&self, step: Step, slot: Slot) {
        self.0.borrow_mut().steps.push((step, slot));
    }

    /// Returns to the parent. It is not called after an error, so that the path of the
    /// error is kept.
    fn leave(&self) {
        self.0.borrow_mut().steps.pop();
    }

    fn reject<E: Error>(&self, reason: impl Into<String>) -> E {
        self.0.borrow_mut().reason = Some(reason.into());
        // This text is not used: `violation` describes the error.
        E::custom("invalid field")
    }
}

/// Seed for the value of a slot.
pub(super) struct TrackedSeed<'t, S> {
    seed: S,
    slot: Slot,
    tracker: &'t Tracker,
}

impl<'t> TrackedSeed<'t, MessageDescriptor> {
    /// Seed for the root of the tracker.
    pub(super) fn root(message: MessageDescriptor, tracker: &'t Tracker) -> Self {
        Self {
            seed: message.clone(),
            slot: Slot::Message(message),
            tracker,
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for TrackedSeed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        match self.slot.resolve() {
            Slot::Opaque => self.seed.deserialize(inner),
            slot => self.seed.deserialize(Tracked {
                inner,
                slot,
                tracker: self.tracker,
            }),
        }
    }
}

/// Deserializer of the value of a slot.
struct Tracked<'t, D> {
    inner: D,
    slot: Slot,
    tracker: &'t Tracker,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tracked<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(TrackedVisitor {
            visitor,
            slot: self.slot,
            tracker: self.tracker,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(TrackedVisitor {
            visitor,
            slot: self.slot,
            tracker: self.tracker,
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct TrackedVisitor<'t, V> {
    visitor: V,
    slot: Slot,
    tracker: &'t Tracker,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for TrackedVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.visitor.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.visitor.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.visitor.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        let is_integer = matches!(&self.slot, Slot::Element(field) if is_integer(&field.kind()));
        if !is_integer {
            return self.visitor.visit_f64(value);
        }
        // Prost-reflect rounds a number that is slightly out of range.
        let whole = whole(value);
        if let Some(value) = whole.and_then(|value| i64::try_from(value).ok()) {
            self.visitor.visit_i64(value)
        } else if let Some(value) = whole.and_then(|value| u64::try_from(value).ok()) {
            self.visitor.visit_u64(value)
        } else {
            Err(E::custom("not a whole number"))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        let Slot::Element(field) = &self.slot else {
            return self.visitor.visit_str(text);
        };
        match adapt(&field.kind(), text) {
            Text::Unchanged(text) => self.visitor.visit_str(text),
            Text::Replaced(text) => self.visitor.visit_str(&text),
            Text::Number(value) => self.visit_f64(value),
            Text::Enum(number) => self.visitor.visit_i64(number.into()),
            Text::Invalid => Err(E::custom("not a value of the field")),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Tracked {
            inner,
            slot: self.slot,
            tracker: self.tracker,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        match self.slot {
            Slot::Field(field) if field.is_list() => self.visitor.visit_seq(TrackedList {
                inner,
                field,
                index: 0,
                tracker: self.tracker,
            }),
            _ => self.visitor.visit_seq(inner),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        match self.slot {
            Slot::Message(message) => self.visitor.visit_map(TrackedMessage {
                inner,
                message,
                seen: Vec::new(),
                current: None,
                tracker: self.tracker,
            }),
            _ => self.visitor.visit_map(inner),
        }
    }
}

struct TrackedList<'t, A> {
    inner: A,
    field: FieldDescriptor,
    index: usize,
    tracker: &'t Tracker,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for TrackedList<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        let slot = Slot::Element(self.field.clone());
        self.tracker.enter(Step::Index(self.index), slot.clone());
        self.index += 1;
        let element = self.inner.next_element_seed(TrackedSeed {
            seed,
            slot,
            tracker: self.tracker,
        })?;
        self.tracker.leave();
        Ok(element)
    }
}

struct TrackedMessage<'t, A> {
    inner: A,
    message: MessageDescriptor,
    /// Numbers of the fields that have been read.
    seen: Vec<u32>,
    /// The field whose name has been read.
    current: Option<FieldDescriptor>,
    tracker: &'t Tracker,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for TrackedMessage<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.inner.next_key::<String>()? else {
            return Ok(None);
        };
        let Some(field) = find_field(&self.message, &name) else {
            let name = name.chars().take(MAX_NAME).collect();
            self.tracker.enter(Step::Name(name), Slot::Opaque);
            let reason = format!("is not a field of {}", self.message.name());
            return Err(self.tracker.reject(reason));
        };
        let step = Step::Name(field.name().to_owned());
        self.tracker.enter(step, Slot::Field(field.clone()));
        if self.seen.contains(&field.number()) {
            return Err(self.tracker.reject("is set more than once"));
        }
        self.seen.push(field.number());
        self.current = Some(field);
        seed.deserialize(StrDeserializer::new(&name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let slot = self.current.take().map_or(Slot::Opaque, Slot::Field);
        let value = self.inner.next_value_seed(TrackedSeed {
            seed,
            slot,
            tracker: self.tracker,
        })?;
        self.tracker.leave();
        Ok(value)
    }
}
