//! Pairs tool calls with their results, as histories require it: a result follows its call. What has
//! no counterpart becomes text, so that it stays in histories.

use std::collections::HashSet;

use domain::{RawPart, Role};

use super::source::Draft;

/// Call without a result so far.
#[derive(Debug)]
struct OpenCall {
    id: String,
    name: String,
    /// Indexes of its message and its part; `None` if an earlier part of the tree contains it.
    position: Option<(usize, usize)>,
}

/// Arranges the new messages of a path, in place. `shared` are the messages before them, which stay
/// as they are.
pub(crate) fn pair<'a>(shared: impl Iterator<Item = &'a Draft>, messages: &mut [&mut Draft]) {
    let mut open = Vec::new();
    let mut used = HashSet::new();
    for part in shared.flat_map(|message| &message.parts) {
        match part {
            RawPart::ToolCall { id, name, .. } => {
                used.insert(id.clone());
                open.push(OpenCall {
                    id: id.clone(),
                    name: name.clone(),
                    position: None,
                });
            }
            RawPart::ToolCallResponse { id, .. } => open.retain(|call| call.id != *id),
            _ => {}
        }
    }
    for (index, message) in messages.iter_mut().enumerate() {
        let name = message.name.clone();
        for position in 0..message.parts.len() {
            match &mut message.parts[position] {
                RawPart::ToolCall { id, name, .. } => {
                    // A repeated id would make it unclear which call a result belongs to.
                    if id.is_empty() || !used.insert(id.clone()) {
                        *id = unused(&mut used);
                    }
                    open.push(OpenCall {
                        id: id.clone(),
                        name: name.clone(),
                        position: Some((index, position)),
                    });
                }
                RawPart::ToolCallResponse { id, response } => {
                    if let Some(at) = find(&open, id, name.as_deref()) {
                        *id = open.remove(at).id;
                    } else {
                        let content = labelled("result", name.as_deref(), response);
                        message.parts[position] = RawPart::Text { content };
                        message.role = Role::Assistant;
                    }
                }
                _ => {}
            }
        }
    }
    let last = messages.len().saturating_sub(1);
    for (index, part) in open.into_iter().filter_map(|call| call.position) {
        // The results of the last message can still follow.
        if index == last {
            continue;
        }
        let part = &mut messages[index].parts[part];
        if let RawPart::ToolCall {
            name, arguments, ..
        } = part
        {
            let content = labelled("call", Some(name), arguments);
            *part = RawPart::Text { content };
        }
    }
}

/// The call that a result belongs to: the one that it names, else the first with its name, else the
/// first one.
fn find(open: &[OpenCall], id: &str, name: Option<&str>) -> Option<usize> {
    if !id.is_empty() {
        // Of equal ids, which were replaced, only the first one is still found.
        return open.iter().position(|call| call.id == id);
    }
    let by_name = open
        .iter()
        .position(|call| Some(call.name.as_str()) == name);
    by_name.or_else(|| (!open.is_empty()).then_some(0))
}

fn unused(used: &mut HashSet<String>) -> String {
    let mut number = used.len() + 1;
    loop {
        let id = format!("call-{number}");
        if used.insert(id.clone()) {
            return id;
        }
        number += 1;
    }
}

fn labelled(kind: &str, name: Option<&str>, text: &str) -> String {
    match name {
        Some(name) => format!("[tool {kind}: {name}]\n{text}"),
        None => format!("[tool {kind}]\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Draft {
        let mut draft = Draft::new(Role::Assistant);
        draft.call(Some(id), Some("find"), "{}".to_owned());
        draft
    }

    fn text(role: Role, text: &str) -> Draft {
        let mut draft = Draft::new(role);
        draft.text(text);
        draft
    }

    fn paired(mut drafts: Vec<Draft>) -> Vec<String> {
        pair(
            std::iter::empty(),
            &mut drafts.iter_mut().collect::<Vec<_>>(),
        );
        let show = |draft: &Draft| match &draft.parts[0] {
            RawPart::ToolCall { id, .. } => format!("call {id}"),
            RawPart::ToolCallResponse { id, .. } => format!("result {id}"),
            RawPart::Text { content } => format!("{}: {content}", draft.role.as_str()),
            _ => String::new(),
        };
        drafts.iter().map(show).collect()
    }

    #[test]
    fn results_without_calls_and_calls_without_results_become_text() {
        let result = |id| Draft::result(Some(id), Some("find"), "12".to_owned());
        assert_eq!(
            paired(vec![
                result("a"),
                call("a"),
                result("a"),
                result("a"),
                call("b"),
                text(Role::User, "x")
            ]),
            [
                "assistant: [tool result: find]\n12",
                "call a",
                "result a",
                "assistant: [tool result: find]\n12",
                "assistant: [tool call: find]\n{}",
                "user: x",
            ]
        );
        assert_eq!(paired(vec![call("a")]), ["call a"]);
    }

    #[test]
    fn missing_and_repeated_ids_are_replaced() {
        let result = |id| Draft::result(id, None, "12".to_owned());
        assert_eq!(
            paired(vec![
                call(""),
                result(None),
                call("a"),
                result(Some("a")),
                call("a"),
                result(None)
            ]),
            [
                "call call-1",
                "result call-1",
                "call a",
                "result a",
                "call call-3",
                "result call-3"
            ]
        );
    }
}
