//! Random messages of a conversation with tools.

use conversation_memory::proto::{
    Message, Part, ReasoningPart, Role, TextPart, ToolCallPart, ToolCallResponsePart, part::Kind,
};

use test_support::random::Random;
use test_support::requests::{message, part};

/// Author of random messages, which remembers the calls that were not answered.
pub(crate) struct Author {
    open: Vec<String>,
    answered: Vec<String>,
    calls: usize,
    /// One in this number of plain messages is pinned; 0 means none.
    pinned: usize,
    /// Whether all results follow their calls, without gaps.
    is_valid: bool,
}

impl Author {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            open: Vec::new(),
            answered: Vec::new(),
            calls: 0,
            pinned: [0, 0, 0, 12, 12, 3, 1][random.below(7)],
            is_valid: random.one_in(3),
        }
    }

    /// Writes the next message.
    pub(crate) fn next(&mut self, random: &mut Random) -> Message {
        let mut next = if self.is_valid {
            match random.below(6) {
                _ if !self.open.is_empty() && !random.one_in(5) => self.result(random),
                _ if !self.open.is_empty() => self.call(random),
                0 | 1 => self.plain(random, Role::User),
                2 | 3 => self.plain(random, Role::Assistant),
                _ => self.call(random),
            }
        } else {
            match random.below(20) {
                0..4 if !self.open.is_empty() => self.result(random),
                4 if !self.answered.is_empty() => {
                    let id = self.answered[random.below(self.answered.len())].clone();
                    results(&[id])
                }
                5 => results(&["missing".to_owned()]),
                0..8 => self.call(random),
                8 => self.plain(random, Role::Tool),
                9 => reasoning(),
                10 => self.plain(random, Role::System),
                11..16 => self.plain(random, Role::User),
                _ => self.plain(random, Role::Assistant),
            }
        };
        if !random.one_in(3) {
            next.token_count = Some(i32::try_from(random.below(30)).unwrap());
        }
        next
    }

    fn plain(&mut self, random: &mut Random, role: Role) -> Message {
        let mut plain = message(role, &"word ".repeat(1 + random.below(9)));
        plain.pinned = role != Role::Tool && self.pinned > 0 && random.one_in(self.pinned);
        if random.one_in(10) {
            plain.name = "Ana".to_owned();
        }
        if random.one_in(10) {
            plain.parts = vec![text("two"), text("texts")];
            plain.content = String::new();
        }
        plain
    }

    fn call(&mut self, random: &mut Random) -> Message {
        let mut parts = Vec::new();
        if random.one_in(4) {
            parts.extend(reasoning().parts);
        }
        if random.one_in(4) {
            parts.push(text("I look it up."));
        }
        for _ in 0..=random.below(3) {
            // An id can be used again.
            let id = if self.is_valid || random.one_in(2) {
                self.calls += 1;
                format!("call_{}", self.calls)
            } else {
                format!("call_{}", 1 + random.below(5))
            };
            if parts.iter().all(|part| id_of(part) != Some(&id)) {
                self.open.push(id.clone());
                parts.push(part(Kind::ToolCall(ToolCallPart {
                    id,
                    name: "look_up".to_owned(),
                    arguments: "{\"a\":1}".to_owned(),
                })));
            }
        }
        Message {
            parts,
            ..message(Role::Assistant, "")
        }
    }

    fn result(&mut self, random: &mut Random) -> Message {
        let mut ids = Vec::new();
        for _ in 0..=random.below(2) {
            if !self.open.is_empty() {
                let id = self.open.swap_remove(random.below(self.open.len()));
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        self.answered.extend(ids.iter().cloned());
        results(&ids)
    }
}

fn results(ids: &[String]) -> Message {
    let parts = ids.iter().map(|id| {
        part(Kind::ToolCallResponse(ToolCallResponsePart {
            id: id.clone(),
            response: "sunny".to_owned(),
        }))
    });
    Message {
        parts: parts.collect(),
        ..message(Role::Tool, "")
    }
}

fn reasoning() -> Message {
    let reasoning = Kind::Reasoning(ReasoningPart {
        content: "Hm.".to_owned(),
    });
    Message {
        parts: vec![part(reasoning)],
        ..message(Role::Assistant, "")
    }
}

fn text(content: &str) -> Part {
    part(Kind::Text(TextPart {
        content: content.to_owned(),
    }))
}

fn id_of(part: &Part) -> Option<&str> {
    match &part.kind {
        Some(Kind::ToolCall(call)) => Some(&call.id),
        _ => None,
    }
}

/// Ids of the tool calls of a message.
pub(crate) fn calls(message: &Message) -> Vec<&str> {
    message.parts.iter().filter_map(id_of).collect()
}

/// Ids of the tool calls whose results a message has.
pub(crate) fn answers(message: &Message) -> Vec<&str> {
    let parts = message.parts.iter();
    parts
        .filter_map(|part| match &part.kind {
            Some(Kind::ToolCallResponse(response)) => Some(response.id.as_str()),
            _ => None,
        })
        .collect()
}

/// Whether a message has reasoning and nothing else.
pub(crate) fn has_only_reasoning(message: &Message) -> bool {
    let is_reasoning = |part: &Part| matches!(part.kind, Some(Kind::Reasoning(_)));
    !message.parts.is_empty() && message.parts.iter().all(is_reasoning)
}

pub(crate) fn tokens(message: &Message) -> u64 {
    u64::try_from(message.token_count.unwrap()).unwrap()
}
