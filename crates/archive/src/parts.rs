//! Parts of messages in the JSON formats, in the form of OpenTelemetry's message schema for
//! generative AI.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use domain::{FieldError, InvalidValue, RawPart};

/// Part of a message.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum PartObject<'a> {
    Text {
        content: Cow<'a, str>,
    },
    Reasoning {
        content: Cow<'a, str>,
    },
    ToolCall {
        id: Cow<'a, str>,
        name: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        arguments: Cow<'a, str>,
    },
    ToolCallResponse {
        id: Cow<'a, str>,
        response: Cow<'a, str>,
    },
    Blob {
        mime_type: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        modality: Cow<'a, str>,
        /// Data in base64.
        content: Cow<'a, str>,
    },
    Uri {
        #[serde(default, skip_serializing_if = "str::is_empty")]
        mime_type: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        modality: Cow<'a, str>,
        uri: Cow<'a, str>,
    },
    File {
        #[serde(default, skip_serializing_if = "str::is_empty")]
        mime_type: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        modality: Cow<'a, str>,
        file_id: Cow<'a, str>,
    },
    Generic {
        generic_type: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        json: Cow<'a, str>,
    },
}

impl From<RawPart> for PartObject<'_> {
    fn from(part: RawPart) -> Self {
        match part {
            RawPart::Text { content } => Self::Text {
                content: content.into(),
            },
            RawPart::Reasoning { content } => Self::Reasoning {
                content: content.into(),
            },
            RawPart::ToolCall {
                id,
                name,
                arguments,
            } => Self::ToolCall {
                id: id.into(),
                name: name.into(),
                arguments: arguments.into(),
            },
            RawPart::ToolCallResponse { id, response } => Self::ToolCallResponse {
                id: id.into(),
                response: response.into(),
            },
            RawPart::Blob {
                mime_type,
                modality,
                data,
                ..
            } => Self::Blob {
                mime_type: mime_type.into(),
                modality: modality.into(),
                content: STANDARD.encode(data.unwrap_or_default()).into(),
            },
            RawPart::Uri {
                mime_type,
                modality,
                uri,
            } => Self::Uri {
                mime_type: mime_type.into(),
                modality: modality.into(),
                uri: uri.into(),
            },
            RawPart::File {
                mime_type,
                modality,
                file_id,
            } => Self::File {
                mime_type: mime_type.into(),
                modality: modality.into(),
                file_id: file_id.into(),
            },
            RawPart::Generic { generic_type, json } => Self::Generic {
                generic_type: generic_type.into(),
                json: json.into(),
            },
        }
    }
}

/// Converts the parts of a file for validation.
pub(super) fn parse_parts(parts: Vec<PartObject<'_>>) -> Result<Vec<RawPart>, FieldError> {
    let parts = parts.into_iter().enumerate();
    parts.map(|(index, part)| parse(part, index)).collect()
}

fn parse(part: PartObject<'_>, index: usize) -> Result<RawPart, FieldError> {
    Ok(match part {
        PartObject::Text { content } => RawPart::Text {
            content: content.into_owned(),
        },
        PartObject::Reasoning { content } => RawPart::Reasoning {
            content: content.into_owned(),
        },
        PartObject::ToolCall {
            id,
            name,
            arguments,
        } => RawPart::ToolCall {
            id: id.into_owned(),
            name: name.into_owned(),
            arguments: arguments.into_owned(),
        },
        PartObject::ToolCallResponse { id, response } => RawPart::ToolCallResponse {
            id: id.into_owned(),
            response: response.into_owned(),
        },
        PartObject::Blob {
            mime_type,
            modality,
            content,
        } => {
            let data = STANDARD.decode(content.as_bytes()).map_err(|_| {
                let path = format!("parts[{index}].content");
                FieldError::new(path, InvalidValue::new("must be base64"))
            })?;
            RawPart::Blob {
                mime_type: mime_type.into_owned(),
                modality: modality.into_owned(),
                bytes: data.len(),
                data: Some(data.into()),
            }
        }
        PartObject::Uri {
            mime_type,
            modality,
            uri,
        } => RawPart::Uri {
            mime_type: mime_type.into_owned(),
            modality: modality.into_owned(),
            uri: uri.into_owned(),
        },
        PartObject::File {
            mime_type,
            modality,
            file_id,
        } => RawPart::File {
            mime_type: mime_type.into_owned(),
            modality: modality.into_owned(),
            file_id: file_id.into_owned(),
        },
        PartObject::Generic { generic_type, json } => RawPart::Generic {
            generic_type: generic_type.into_owned(),
            json: json.into_owned(),
        },
    })
}
