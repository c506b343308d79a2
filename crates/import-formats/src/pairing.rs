//! Pairs tool calls with their results, as histories require it: a result follows its call. What has
//! no counterpart becomes text, so that it stays in histories.

use std::collections::{HashMap, HashSet, VecDeque};

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

/// Calls in order, of which each is found in constant time.
#[derive(Debug, Default)]
struct OpenCalls {
    /// `None` once it has a result.
    calls: Vec<Option<OpenCall>>,
    by_id: HashMap<String, usize>,
    /// Calls of each name, also those that have a result meanwhile.
    by_name: HashMap<String, VecDeque<usize>>,
    /// Index that no call without a result is before.
    first: usize,
}

impl OpenCalls {
    fn push(&mut self, call: OpenCall) {
        let index = self.calls.len();
        // Of equal ids, which were replaced, only the first one is still found.
        self.by_id.entry(call.id.clone()).or_insert(index);
        self.by_name
            .entry(call.name.clone())
            .or_default()
            .push_back(index);
        self.calls.push(Some(call));
    }

    /// Removes the call with an id.
    fn remove(&mut self, id: &str) -> Option<OpenCall> {
        let index = self.by_id.remove(id)?;
        self.calls[index].take()
    }

    /// Removes the call that a result belongs to: the one that it names, else the first with its name,
    /// else the first one.
    fn take(&mut self, id: &str, name: Option<&str>) -> Option<OpenCall> {
        if !id.is_empty() {
            return self.remove(id);
        }
        let calls = &mut self.calls;
        let named = name.and_then(|name| self.by_name.get_mut(name));
        let named = named.and_then(|indexes| {
            while indexes.front().is_some_and(|&at| calls[at].is_none()) {
                indexes.pop_front();
            }
            indexes.pop_front()
        });
        while calls.get(self.first).is_some_and(Option::is_none) {
            self.first += 1;
        }
        let call = calls.get_mut(named.unwrap_or(self.first))?.take()?;
        self.by_id.remove(&call.id);
        Some(call)
    }
}

/// Ids that the calls of tools have, and new ones for calls without an id.
#[derive(Debug, Default)]
struct Ids {
    used: HashSet<String>,
    /// Number that no unused id is before.
    next: usize,
}

impl Ids {
    fn unused(&mut self) -> String {
        self.next = self.next.max(self.used.len() + 1);
        loop {
            let id = format!("call-{}", self.next);
            self.next += 1;
            if self.used.insert(id.clone()) {
                return id;
            }
        }
    }
}

/// Arranges the new messages of a path, in place. `shared` are the messages before them, which stay
/// as they are.
pub(crate) fn pair<'a>(shared: impl Iterator<Item = &'a Draft>, messages: &mut [&mut Draft]) {
    let mut open = OpenCalls::default();
    let mut ids = Ids::default();
    for part in shared.flat_map(|message| &message.parts) {
        match part {
            RawPart::ToolCall { id, name, .. } => {
                ids.used.insert(id.clone());
                open.push(OpenCall {
                    id: id.clone(),
                    name: name.clone(),
                    position: None,
                });
            }
            RawPart::ToolCallResponse { id, .. } => {
                open.remove(id);
            }
            _ => {}
        }
    }
    for (index, message) in messages.iter_mut().enumerate() {
        let name = message.name.clone();
        for position in 0..message.parts.len() {
            match &mut message.parts[position] {
                RawPart::ToolCall { id, name, .. } => {
                    // A repeated id would make it unclear which call a result belongs to.
                    if id.is_empty() || !ids.used.insert(id.clone()) {
                        *id = ids.unused();
                    }
                    open.push(OpenCall {
                        id: id.clone(),
                        name: name.clone(),
                        position: Some((index, position)),
                    });
                }
                RawPart::ToolCallResponse { id, response } => {
                    if let Some(call) = open.take(id, name.as_deref()) {
                        *id = call.id;
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
    let unanswered = open.calls.into_iter().flatten();
    for (index, part) in unanswered.filter_map(|call| call.position) {
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
    /// Takes minutes if the time grows with the square of the number.
    #[test]
    fn many_calls_are_paired_in_any_order() {
        const COUNT: usize = 100_000;
        let ids: Vec<_> = (0..COUNT).map(|number| format!("c{number}")).collect();
        let result = |id, name| Draft::result(id, name, String::new());
        let calls = || ids.iter().map(|id| call(id));
        let reversed = ids.iter().rev().map(|id| result(Some(id.as_str()), None));
        let paired_reversed = paired(calls().chain(reversed).collect());
        assert_eq!(paired_reversed[COUNT], format!("result c{}", COUNT - 1));
        assert_eq!(paired_reversed[2 * COUNT - 1], "result c0");
        for name in [None, Some("find")] {
            let results = (0..COUNT).map(|_| result(None, name));
            let in_order = paired(calls().chain(results).collect());
            assert_eq!(in_order[2 * COUNT - 1], format!("result c{}", COUNT - 1));
        }
        let numbered = (0..COUNT).map(|number| call(&format!("call-{}", COUNT + number)));
        let without = (0..COUNT).map(|_| call(""));
        let replaced = paired(numbered.chain(without).collect());
        // Only the last message has no text instead of its call.
        assert_eq!(
            replaced[2 * COUNT - 1],
            format!("call call-{}", 3 * COUNT - 1)
        );
    }
}
