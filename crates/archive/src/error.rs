//! Errors of files that are read. No error text quotes the file.

use serde_path_to_error::Segment;

use domain::{FieldError, InvalidValue};

pub(super) const UNKNOWN_MEMBER: &str = "has a member that the format does not have";

/// Error in a file, with the line that it is on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct LineError {
    /// Number of the line, 1 or more.
    pub line: u64,
    /// Member of the line's object that is invalid; its path is empty for the line
    /// itself.
    pub error: FieldError,
}

impl LineError {
    /// Creates the error of a whole line.
    pub(super) fn new(line: u64, reason: InvalidValue) -> Self {
        Self {
            line,
            error: FieldError::new("", reason),
        }
    }
}

/// Prefixes the field's path with the line: `line 2: contexts[0].score`.
impl From<LineError> for FieldError {
    fn from(LineError { line, error }: LineError) -> Self {
        let separator = if error.path.is_empty() { "" } else { ": " };
        Self::new(
            format!("line {line}{separator}{}", error.path),
            error.reason,
        )
    }
}

/// Error in an element of a file.
#[derive(Debug)]
pub(super) enum ElementError {
    /// The element is not valid JSON.
    Syntax {
        /// Line breaks between the element's beginning and the error.
        lines_before: u64,
    },
    /// A member of the element is invalid.
    Field(FieldError),
}

impl ElementError {
    pub(super) fn field(path: &str, reason: &'static str) -> Self {
        Self::Field(FieldError::new(path, InvalidValue::new(reason)))
    }

    /// See [`FieldError::below`].
    pub(super) fn below(self, parent: &str) -> Self {
        match self {
            Self::Field(error) if !parent.is_empty() => Self::Field(error.below(parent)),
            other => other,
        }
    }

    /// Adds the line that the element begins on.
    pub(super) fn on_line(self, line: u64) -> LineError {
        match self {
            Self::Syntax { lines_before } => {
                LineError::new(line + lines_before, InvalidValue::new("is not valid JSON"))
            }
            Self::Field(error) => LineError { line, error },
        }
    }
}

impl From<FieldError> for ElementError {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

impl From<serde_json::Error> for ElementError {
    fn from(error: serde_json::Error) -> Self {
        translate(&[], &error)
    }
}

impl From<serde_path_to_error::Error<serde_json::Error>> for ElementError {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let segments: Vec<&Segment> = error.path().iter().collect();
        translate(&segments, error.inner())
    }
}

/// Describes an error of the JSON parser without quoting the file, as the parser's own text
/// does.
fn translate(segments: &[&Segment], error: &serde_json::Error) -> ElementError {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(text, _)| text);
    let path = path(segments);
    if text == "number out of range" {
        return FieldError::new(path, InvalidValue::new("must be a finite number")).into();
    }
    if error.classify() != serde_json::error::Category::Data {
        return ElementError::Syntax {
            lines_before: (error.line() as u64).saturating_sub(1),
        };
    }
    // Between these quotes the parser writes only names that the format defines.
    let name = |prefix| text.strip_prefix(prefix)?.strip_suffix('`');
    if let Some(name) = name("missing field `") {
        return ElementError::field(name, "is required").below(&path);
    }
    if let Some(name) = name("duplicate field `") {
        return ElementError::field(name, "is given twice").below(&path);
    }
    if text.starts_with("unknown field `") {
        // The last segment is the unknown name itself, which the file contains.
        let parent = segments.split_last().map_or(segments, |(_, parent)| parent);
        return ElementError::field("", UNKNOWN_MEMBER).below(&self::path(parent));
    }
    let expected = match text
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected)
    {
        Some("i32") => "a 32-bit integer".to_owned(),
        Some("u32") => "an unsigned 32-bit integer".to_owned(),
        Some("i64") => "a 64-bit integer".to_owned(),
        Some("f64") => "a number".to_owned(),
        Some(expected) => expected.to_owned(),
        None => "of the type that the format defines".to_owned(),
    };
    FieldError::new(path, InvalidValue::new(format!("must be {expected}"))).into()
}

fn path(segments: &[&Segment]) -> String {
    let mut path = String::new();
    for segment in segments {
        path = match segment {
            Segment::Seq { index } => format!("{path}[{index}]"),
            Segment::Map { key } if path.is_empty() => key.clone(),
            Segment::Map { key } => format!("{path}.{key}"),
            Segment::Enum { .. } | Segment::Unknown => path,
        };
    }
    path
}
