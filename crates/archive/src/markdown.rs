//! Markdown, for people. Texts of messages are written as they are, because models write Markdown.

use std::fmt::Write as _;

use super::schema::format_time;
use domain::{Conversation, Message, RawPart, Role};

const UNTITLED: &str = "Conversation";

/// Title and properties of the conversation.
pub(super) fn header(conversation: &Conversation) -> Vec<u8> {
    let title = conversation.title.as_ref();
    let title = title.map_or(UNTITLED, |title| title.as_str());
    let mut text = format!("# {}\n\n", on_one_line(title));
    push(&mut text, "Conversation", &conversation.id.to_string());
    push(&mut text, "User", conversation.user_id.as_str());
    push(&mut text, "Created", &format_time(conversation.created_at));
    push(&mut text, "Updated", &format_time(conversation.updated_at));
    text.into_bytes()
}

/// A heading with the author, and the parts of the message.
pub(super) fn add_message(file: &mut Vec<u8>, message: &Message) {
    let author = match message.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::System => "System",
        Role::Tool => "Tool",
    };
    let mut text = format!("\n## {}. {author}", message.seq);
    if let Some(name) = &message.name {
        let _ = write!(text, " ({})", on_one_line(name.as_str()));
    }
    let _ = write!(text, "\n\n*{}*\n", format_time(message.created_at));
    if message.redacted {
        text.push_str("\n*redacted*\n");
    }
    let parts = message.raw_parts();
    if parts.is_empty() {
        add_text(&mut text, message.content.as_str());
    }
    for part in parts {
        add_part(&mut text, part);
    }
    for context in &message.contexts {
        let _ = write!(
            text,
            "\nContext `{}`:\n",
            on_one_line(&context.doc_id).replace('`', "'")
        );
        add_block(&mut text, "", context.content.as_str());
    }
    file.extend_from_slice(text.as_bytes());
}

fn add_part(text: &mut String, part: RawPart) {
    match part {
        RawPart::Text { content } => add_text(text, &content),
        RawPart::Reasoning { content } => {
            text.push_str("\nReasoning:\n");
            add_block(text, "", &content);
        }
        RawPart::ToolCall {
            id,
            name,
            arguments,
        } => {
            let _ = write!(
                text,
                "\nCall of {} ({}):\n",
                on_one_line(&name),
                on_one_line(&id)
            );
            add_block(text, "json", &arguments);
        }
        RawPart::ToolCallResponse { id, response } => {
            let _ = write!(text, "\nResult ({}):\n", on_one_line(&id));
            add_block(text, "", &response);
        }
        RawPart::Blob {
            mime_type, bytes, ..
        } => {
            let _ = write!(text, "\n*[{}, {bytes} bytes]*\n", on_one_line(&mime_type));
        }
        RawPart::Uri { uri, .. } => {
            let _ = write!(text, "\n<{}>\n", on_one_line(&uri));
        }
        RawPart::File { file_id, .. } => {
            let _ = write!(text, "\n*[file {}]*\n", on_one_line(&file_id));
        }
        // Details of a framework are not for people.
        RawPart::Generic { generic_type, .. } if generic_type.starts_with("delta:") => {}
        RawPart::Generic { generic_type, json } => {
            let _ = write!(text, "\n{}:\n", on_one_line(&generic_type));
            add_block(text, "json", &json);
        }
    }
}

fn add_text(text: &mut String, content: &str) {
    if !content.is_empty() {
        let _ = write!(text, "\n{}\n", content.trim_end_matches('\n'));
    }
}

/// Adds a block of code, whose fence is longer than every one in it.
fn add_block(text: &mut String, language: &str, content: &str) {
    let longest = content
        .split(|char| char != '`')
        .map(str::len)
        .max()
        .unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = write!(
        text,
        "\n{fence}{language}\n{}\n{fence}\n",
        content.trim_end_matches('\n')
    );
}

fn push(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "- {name}: {}", on_one_line(value));
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
