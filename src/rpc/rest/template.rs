use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::contract::Unfit;

/// A route's path: `/v1/conversations/{conversation_id}:truncate`.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    /// What follows the last colon.
    pub(super) verb: Option<String>,
}

/// What stands between two slashes.
#[derive(Debug)]
pub(super) enum Segment {
    Literal(String),
    /// Whatever stands there is the value of a field of the request.
    Variable(FieldPath),
}

/// A field, with the messages that it is in: `conversation.id`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldPath(pub(super) Vec<FieldDescriptor>);

impl FieldPath {
    /// The field that a dotted name means. Each name is the one of the proto file or
    /// the one of JSON.
    pub(super) fn find(message: &MessageDescriptor, dotted: &str) -> Option<Self> {
        let mut message = Some(message.clone());
        let mut fields = Vec::new();
        for name in dotted.split('.') {
            let field = field(&message?, name)?;
            message = match field.kind() {
                Kind::Message(inner) if !field.is_list() && !field.is_map() => Some(inner),
                _ => None,
            };
            fields.push(field);
        }
        Some(Self(fields))
    }

    /// The dotted name, as the proto file has it.
    pub(super) fn name(&self) -> String {
        let names: Vec<_> = self.0.iter().map(FieldDescriptor::name).collect();
        names.join(".")
    }

    /// The name that the field has as a variable of a path: `conversation_id` for
    /// `conversation.id`, so that routes that differ in no more are one path.
    pub(super) fn variable(&self) -> String {
        self.name().replace('.', "_")
    }
}

/// The field of that name, which is the one of the proto file or the one of JSON.
pub(super) fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_json_name(name)
        .or_else(|| message.get_field_by_name(name))
}

impl Template {
    pub(super) fn parse(text: &str, request: &MessageDescriptor) -> Result<Self, Unfit> {
        let unfit = |why: &str| Unfit(format!("the route {text} {why}"));
        let path = text
            .strip_prefix('/')
            .ok_or_else(|| unfit("does not begin with a slash"))?;
        let (path, verb) = match path.rsplit_once(':') {
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
                    .ok_or_else(|| unfit("names a field that the request does not have")),
                None if segment.contains(['{', '}', '*', ':']) => {
                    Err(unfit("has a pattern that is not served"))
                }
                None => Ok(Segment::Literal(segment.to_owned())),
            }
        };
        Ok(Self {
            segments: path.split('/').map(segment).collect::<Result<_, _>>()?,
            verb,
        })
    }

    /// The fields that the path gives.
    pub(super) fn variables(&self) -> impl Iterator<Item = &FieldPath> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(field) => Some(field),
            Segment::Literal(_) => None,
        })
    }

    /// What a path has in place of the variables, still percent-encoded. A colon in
    /// the last segment begins a verb; one that belongs to a value is encoded.
    pub(super) fn matches<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let path = path.strip_prefix('/')?;
        let last = path.rfind('/').map_or(0, |slash| slash + 1);
        let (path, verb) = match path[last..].rfind(':') {
            Some(colon) => (&path[..last + colon], Some(&path[last + colon + 1..])),
            None => (path, None),
        };
        if verb != self.verb.as_deref() || path.split('/').count() != self.segments.len() {
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

/// The path as OpenAPI has it, where a variable's name has no dots.
impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{literal}")?,
                Segment::Variable(field) => write!(f, "/{{{}}}", field.variable())?,
            }
        }
        match &self.verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}
