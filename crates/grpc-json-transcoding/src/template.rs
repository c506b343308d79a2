use std::fmt;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::json::WellKnown;

/// Path template of an HTTP rule: `/v1/conversations/{conversation_id}:truncate`.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    /// Text after the last colon.
    custom_verb: Option<String>,
}

/// Part of a path template between two slashes.
#[derive(Debug)]
pub(crate) enum Segment {
    Literal(String),
    /// Variable: any value, which becomes the value of a field of the request.
    Variable(FieldPath),
}

/// A field of a message, preceded by the fields that contain it: `conversation.id`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldPath(pub(crate) Vec<FieldDescriptor>);

impl FieldPath {
    /// Finds the field with a dotted name. Each part is the field's name in the proto file or
    /// in JSON. A message with a JSON form of its own, such as a field mask, has no fields here:
    /// it could be set as a whole and in parts at once.
    pub(crate) fn find(message: &MessageDescriptor, dotted: &str) -> Option<Self> {
        let mut message = Some(message.clone());
        let mut fields = Vec::new();
        for name in dotted.split('.') {
            let field = find_field(&message?, name)?;
            message = match field.kind() {
                Kind::Message(inner)
                    if !field.is_list() && !field.is_map() && WellKnown::of(&inner).is_none() =>
                {
                    Some(inner)
                }
                _ => None,
            };
            fields.push(field);
        }
        Some(Self(fields))
    }

    /// Dotted name, as in the proto file.
    pub(crate) fn name(&self) -> String {
        let names: Vec<_> = self.0.iter().map(FieldDescriptor::name).collect();
        names.join(".")
    }

    /// Name as a variable in the OpenAPI document: `conversation_id` for `conversation.id`.
    /// Templates that differ only in this way become one path.
    pub(crate) fn variable(&self) -> String {
        self.name().replace('.', "_")
    }
}

/// Finds a field by its name in the proto file or in JSON.
pub(crate) fn find_field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_json_name(name)
        .or_else(|| message.get_field_by_name(name))
}

impl Template {
    /// Parses a template whose variables are fields of `request`.
    ///
    /// # Errors
    /// Fails if the template is invalid or has a pattern that is not supported.
    pub(crate) fn parse(text: &str, request: &MessageDescriptor) -> Result<Self, String> {
        let path = text
            .strip_prefix('/')
            .ok_or_else(|| format!("the path {text} does not start with a slash"))?;
        let (path, custom_verb) = match path.rsplit_once(':') {
            Some((path, verb)) => (path, Some(verb.to_owned())),
            None => (path, None),
        };
        let segment = |segment: &str| {
            let name = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            match name {
                Some(name) => FieldPath::find(request, name)
                    .map(Segment::Variable)
                    .ok_or_else(|| format!("the path {text} names an unknown field: {name}")),
                None if segment.contains(['{', '}', '*', ':']) => Err(format!(
                    "the path {text} has an unsupported pattern: {segment}"
                )),
                None => Ok(Segment::Literal(segment.to_owned())),
            }
        };
        Ok(Self {
            segments: path.split('/').map(segment).collect::<Result<_, _>>()?,
            custom_verb,
        })
    }

    /// Fields whose values are in the path.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &FieldPath> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(field) => Some(field),
            Segment::Literal(_) => None,
        })
    }

    /// Matches a path and returns the values of the variables, still percent-encoded. A colon
    /// in the last segment starts a custom verb; a colon that belongs to a value is encoded.
    pub(crate) fn matches<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let path = path.strip_prefix('/')?;
        let last = path.rfind('/').map_or(0, |slash| slash + 1);
        let (path, verb) = match path[last..].rfind(':') {
            Some(colon) => (&path[..last + colon], Some(&path[last + colon + 1..])),
            None => (path, None),
        };
        if verb != self.custom_verb.as_deref() || path.split('/').count() != self.segments.len() {
            return None;
        }
        let mut captures = Vec::new();
        for (segment, part) in self.segments.iter().zip(path.split('/')) {
            match segment {
                Segment::Literal(literal) if literal == part => {}
                Segment::Literal(_) => return None,
                Segment::Variable(_) if part.is_empty() => return None,
                Segment::Variable(_) => captures.push(part),
            }
        }
        Some(captures)
    }
}

/// Formats the path as OpenAPI does.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{literal}")?,
                Segment::Variable(field) => write!(f, "/{{{}}}", field.variable())?,
            }
        }
        match &self.custom_verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}
