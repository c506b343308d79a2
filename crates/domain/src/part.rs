use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{FieldError, InField as _, InvalidValue, Limits, Role, SizeLimit, text::reject_nul};

/// Text between two texts of a message in its content.
const SEPARATOR: &str = "\n";

/// Part of a message as it is stored. The types are those of OpenTelemetry's message schema for
/// generative AI.
///
/// The texts of a message are in its content, and a part has only their length, so that no text is
/// stored twice. [`RawPart`] has the text itself.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text in the message's content.
    Text {
        /// Length of the text in bytes.
        bytes: usize,
    },
    /// Reasoning of the model.
    Reasoning {
        /// Text of the reasoning.
        content: String,
    },
    /// Tool call.
    ToolCall {
        /// Id, which the result names.
        id: String,
        /// Name of the tool.
        name: String,
        /// Arguments as the model wrote them, usually JSON.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        arguments: String,
    },
    /// Result of a tool call, whose text is in the message's content.
    ToolCallResponse {
        /// Id of the call.
        id: String,
        /// Length of the result in bytes.
        bytes: usize,
    },
    /// Binary data.
    Blob(Blob),
    /// Reference by URI.
    Uri {
        /// Media type; empty if unknown.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        mime_type: String,
        /// Kind of data, such as `image`; empty if unknown.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        modality: String,
        /// URI as given.
        uri: String,
    },
    /// Reference to a file that the model's provider stores.
    File {
        /// Media type; empty if unknown.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        mime_type: String,
        /// Kind of data, such as `image`; empty if unknown.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        modality: String,
        /// Id that the provider gave the file.
        file_id: String,
    },
    /// Part of another type.
    Generic {
        /// Name of the type.
        generic_type: String,
        /// Content as given, usually JSON.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        json: String,
    },
}

/// Binary part. Its data is stored apart from the message.
#[derive(Clone, Serialize, Deserialize)]
pub struct Blob {
    /// Media type.
    pub mime_type: String,
    /// Kind of data, such as `image`; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub modality: String,
    /// Size of the data in bytes.
    pub bytes: usize,
    /// SHA-256 of the data in hexadecimal, which distinguishes a retry from another message.
    pub sha256: String,
    /// Data; `None` if it was not read.
    #[serde(skip)]
    pub data: Option<Bytes>,
}

/// Part of a message as a caller supplied it, before validation, or as it is rendered.
#[derive(Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of Part")]
pub enum RawPart {
    Text {
        content: String,
    },
    Reasoning {
        content: String,
    },
    ToolCall {
        id: String,
        name: String,
        arguments: String,
    },
    ToolCallResponse {
        id: String,
        response: String,
    },
    Blob {
        mime_type: String,
        modality: String,
        /// `None` only in rendered messages, if the data was not read.
        data: Option<Bytes>,
        /// Size of the data; not validated on input.
        bytes: usize,
    },
    Uri {
        mime_type: String,
        modality: String,
        uri: String,
    },
    File {
        mime_type: String,
        modality: String,
        file_id: String,
    },
    Generic {
        generic_type: String,
        json: String,
    },
}

impl Part {
    /// Upper bound on the parts of a message.
    pub const MAX_PER_MESSAGE: usize = 200;
    /// Upper bound on the length of ids, names, types and media types, in characters.
    pub const MAX_NAME_CHARS: usize = 255;

    /// Size in a response in bytes, without the data of a blob.
    pub fn size(&self) -> usize {
        /// Upper bound on the bytes of keys and lengths.
        const OVERHEAD: usize = 16;
        OVERHEAD
            + match self {
                Self::Text { bytes } => *bytes,
                Self::ToolCallResponse { id, bytes } => id.len() + bytes,
                _ => self.own_bytes(),
            }
    }

    /// Bytes of text that the part itself has, besides the message's content.
    pub fn own_bytes(&self) -> usize {
        match self {
            Self::Text { .. } => 0,
            Self::Reasoning { content } => content.len(),
            Self::ToolCall {
                id,
                name,
                arguments,
            } => id.len() + name.len() + arguments.len(),
            Self::ToolCallResponse { id, .. } => id.len(),
            Self::Blob(blob) => blob.mime_type.len() + blob.modality.len(),
            Self::Uri {
                mime_type,
                modality,
                uri: reference,
            }
            | Self::File {
                mime_type,
                modality,
                file_id: reference,
            } => mime_type.len() + modality.len() + reference.len(),
            Self::Generic { generic_type, json } => generic_type.len() + json.len(),
        }
    }

    /// The blob, if the part is one.
    pub fn as_blob(&self) -> Option<&Blob> {
        match self {
            Self::Blob(blob) => Some(blob),
            _ => None,
        }
    }

    /// The blob, if the part is one.
    pub fn as_blob_mut(&mut self) -> Option<&mut Blob> {
        match self {
            Self::Blob(blob) => Some(blob),
            _ => None,
        }
    }
}

/// Validates the parts of a message, and returns its content and the parts as they are stored.
/// A message that consists of one text has no parts.
///
/// # Errors
///
/// Fails with a [`FieldError`] that names the first invalid field, such as `parts[0].tool_call.id`,
/// or `content` if it differs from the texts of the parts.
pub(super) fn assemble(
    content: String,
    raw: Vec<RawPart>,
    role: Role,
    limits: &Limits,
) -> Result<(String, Vec<Part>), FieldError> {
    if raw.is_empty() {
        return Ok((content, Vec::new()));
    }
    let max = Part::MAX_PER_MESSAGE;
    if raw.len() > max {
        let reason = InvalidValue::new(format!("must have at most {max} parts"));
        return Err(FieldError::new("parts", reason));
    }
    let mut texts: Option<String> = None;
    let mut parts = Vec::with_capacity(raw.len() + 1);
    let mut own_bytes = 0;
    for (index, part) in raw.into_iter().enumerate() {
        let part = validate(part, role, limits, &mut texts)
            .and_then(|part| reject_repeated_id(&parts, &part).map(|()| part))
            .map_err(|error| error.below(format_args!("parts[{index}]")))?;
        own_bytes += part.own_bytes();
        let bytes = own_bytes + texts.as_ref().map_or(content.len(), String::len);
        let (max, max_together) = (limits.content_bytes, limits.content_bytes / 2 * 3);
        if own_bytes > max || bytes > max_together {
            let reason = InvalidValue::exceeds(
                SizeLimit::Content,
                format_args!(
                    "must have at most {max} bytes of text besides the content, and \
                     {max_together} with it"
                ),
            );
            return Err(FieldError::new("parts", reason));
        }
        parts.push(part);
    }
    let content = match texts {
        Some(texts) if content.is_empty() || content == texts => texts,
        Some(_) => {
            let reason = "must be empty or the texts of the parts, joined by line feeds";
            return Err(FieldError::new("content", InvalidValue::new(reason)));
        }
        None if content.is_empty() => content,
        None => {
            let bytes = content.len();
            parts.insert(0, Part::Text { bytes });
            content
        }
    };
    if matches!(parts[..], [Part::Text { bytes: 1.. }]) {
        parts.clear();
    }
    Ok((content, parts))
}

/// Validates a part and moves its text to the end of `texts`.
fn validate(
    part: RawPart,
    role: Role,
    limits: &Limits,
    texts: &mut Option<String>,
) -> Result<Part, FieldError> {
    match part {
        RawPart::Text { content } => Ok(Part::Text {
            bytes: push_text(texts, &content),
        }),
        RawPart::Reasoning { content } => {
            reject_nul(&content).in_field("reasoning.content")?;
            Ok(Part::Reasoning { content })
        }
        RawPart::ToolCall {
            id,
            name,
            arguments,
        } => {
            require_role(role, Role::Assistant).in_field("tool_call")?;
            reject_nul(&arguments).in_field("tool_call.arguments")?;
            Ok(Part::ToolCall {
                id: required_name(id).in_field("tool_call.id")?,
                name: required_name(name).in_field("tool_call.name")?,
                arguments,
            })
        }
        RawPart::ToolCallResponse { id, response } => {
            require_role(role, Role::Tool).in_field("tool_call_response")?;
            Ok(Part::ToolCallResponse {
                id: required_name(id).in_field("tool_call_response.id")?,
                bytes: push_text(texts, &response),
            })
        }
        RawPart::Blob {
            mime_type,
            modality,
            data,
            ..
        } => validate_blob(mime_type, modality, data.unwrap_or_default(), limits)
            .map(Part::Blob)
            .map_err(|error| error.below("blob")),
        RawPart::Uri {
            mime_type,
            modality,
            uri,
        } => Ok(Part::Uri {
            mime_type: optional_media_type(mime_type).in_field("uri.mime_type")?,
            modality: optional_name(modality).in_field("uri.modality")?,
            uri: required_text(uri).in_field("uri.uri")?,
        }),
        RawPart::File {
            mime_type,
            modality,
            file_id,
        } => Ok(Part::File {
            mime_type: optional_media_type(mime_type).in_field("file.mime_type")?,
            modality: optional_name(modality).in_field("file.modality")?,
            file_id: required_text(file_id).in_field("file.file_id")?,
        }),
        RawPart::Generic { generic_type, json } => {
            reject_nul(&json).in_field("generic.json")?;
            Ok(Part::Generic {
                generic_type: required_name(generic_type).in_field("generic.type")?,
                json,
            })
        }
    }
}

/// Rejects a tool call or a result with the id of an earlier one, because a result names its call by
/// the id.
fn reject_repeated_id(earlier: &[Part], part: &Part) -> Result<(), FieldError> {
    let (field, is_repeated) = match part {
        Part::ToolCall { id, .. } => {
            let is_same = |other: &Part| matches!(other, Part::ToolCall { id: it, .. } if it == id);
            ("tool_call.id", earlier.iter().any(is_same))
        }
        Part::ToolCallResponse { id, .. } => {
            let is_same =
                |other: &Part| matches!(other, Part::ToolCallResponse { id: it, .. } if it == id);
            ("tool_call_response.id", earlier.iter().any(is_same))
        }
        _ => return Ok(()),
    };
    if is_repeated {
        let reason = InvalidValue::new("is the id of an earlier part");
        return Err(FieldError::new(field, reason));
    }
    Ok(())
}

fn validate_blob(
    mime_type: String,
    modality: String,
    data: Bytes,
    limits: &Limits,
) -> Result<Blob, FieldError> {
    if data.is_empty() {
        return Err(FieldError::new("data", InvalidValue::new("is required")));
    }
    let max = limits.blob_bytes;
    if data.len() > max {
        let reason = format_args!("must have at most {max} bytes");
        let reason = InvalidValue::exceeds(SizeLimit::Blob, reason);
        return Err(FieldError::new("data", reason));
    }
    if mime_type.is_empty() {
        let reason = InvalidValue::new("is required");
        return Err(FieldError::new("mime_type", reason));
    }
    Ok(Blob {
        mime_type: optional_media_type(mime_type).in_field("mime_type")?,
        modality: optional_name(modality).in_field("modality")?,
        bytes: data.len(),
        sha256: hexadecimal(&Sha256::digest(&data)),
        data: Some(data),
    })
}

/// Returns the parts of a message with their texts, which are taken from its content.
pub(super) fn render(content: &str, parts: &[Part]) -> Vec<RawPart> {
    let mut rest = content;
    let mut is_first = true;
    let mut next_text = |bytes: usize| {
        if !is_first {
            rest = rest.get(SEPARATOR.len()..).unwrap_or_default();
        }
        is_first = false;
        // Lengths that do not match the content cannot be stored by this program; they must not
        // fail a read.
        let (text, remaining) = rest.split_at_checked(bytes).unwrap_or((rest, ""));
        rest = remaining;
        text.to_owned()
    };
    parts
        .iter()
        .map(|part| match part.clone() {
            Part::Text { bytes } => RawPart::Text {
                content: next_text(bytes),
            },
            Part::Reasoning { content } => RawPart::Reasoning { content },
            Part::ToolCall {
                id,
                name,
                arguments,
            } => RawPart::ToolCall {
                id,
                name,
                arguments,
            },
            Part::ToolCallResponse { id, bytes } => RawPart::ToolCallResponse {
                id,
                response: next_text(bytes),
            },
            Part::Blob(Blob {
                mime_type,
                modality,
                bytes,
                data,
                ..
            }) => RawPart::Blob {
                mime_type,
                modality,
                data,
                bytes,
            },
            Part::Uri {
                mime_type,
                modality,
                uri,
            } => RawPart::Uri {
                mime_type,
                modality,
                uri,
            },
            Part::File {
                mime_type,
                modality,
                file_id,
            } => RawPart::File {
                mime_type,
                modality,
                file_id,
            },
            Part::Generic { generic_type, json } => RawPart::Generic { generic_type, json },
        })
        .collect()
}

fn push_text(texts: &mut Option<String>, text: &str) -> usize {
    match texts {
        Some(texts) => {
            texts.push_str(SEPARATOR);
            texts.push_str(text);
        }
        None => *texts = Some(text.to_owned()),
    }
    text.len()
}

fn require_role(role: Role, required: Role) -> Result<(), InvalidValue> {
    if role == required {
        return Ok(());
    }
    let required = required.as_str();
    Err(InvalidValue::new(format!(
        "is only valid on messages of the role {required}"
    )))
}

fn required_name(name: String) -> Result<String, InvalidValue> {
    if name.is_empty() {
        return Err(InvalidValue::new("is required"));
    }
    optional_name(name)
}

fn optional_name(name: String) -> Result<String, InvalidValue> {
    let max = Part::MAX_NAME_CHARS;
    if name.len() > max && name.chars().count() > max {
        return Err(InvalidValue::new(format!(
            "must have at most {max} characters"
        )));
    }
    reject_nul(&name)?;
    Ok(name)
}

/// Validates a media type, which becomes the header of a download.
fn optional_media_type(mime_type: String) -> Result<String, InvalidValue> {
    let is_printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if !mime_type.is_empty() && (!mime_type.contains('/') || !mime_type.bytes().all(is_printable)) {
        return Err(InvalidValue::new(
            "must be a media type, such as image/jpeg",
        ));
    }
    optional_name(mime_type)
}

fn required_text(text: String) -> Result<String, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new("is required"));
    }
    reject_nul(&text)?;
    Ok(text)
}

fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl PartialEq for Blob {
    /// Compares the data by its digest, since one of the blobs may have been read without it.
    fn eq(&self, other: &Self) -> bool {
        self.mime_type == other.mime_type
            && self.modality == other.modality
            && self.bytes == other.bytes
            && self.sha256 == other.sha256
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Text { .. } => "Text",
            Self::Reasoning { .. } => "Reasoning",
            Self::ToolCall { .. } => "ToolCall",
            Self::ToolCallResponse { .. } => "ToolCallResponse",
            Self::Blob(_) => "Blob",
            Self::Uri { .. } => "Uri",
            Self::File { .. } => "File",
            Self::Generic { .. } => "Generic",
        };
        f.debug_struct(name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RawPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawPart").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
