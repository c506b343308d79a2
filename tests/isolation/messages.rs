//! Random messages and files.

use serde_json::{Value, json};
use test_support::random::Random;

use crate::normalize::YEAR_OF_REQUESTS;

/// Words of all texts, few enough that searches find several messages.
const WORDS: [&str; 16] = [
    "vacation", "days", "policy", "Zürich", "naïve", "東京", "report", "e-mail", "the", "budget",
    "running", "runs", "2024", "Straße", "🙂", "invoice",
];

pub(crate) fn words(random: &mut Random, most: usize) -> String {
    let count = 1 + random.below(most);
    let words: Vec<_> = (0..count)
        .map(|_| WORDS[random.below(WORDS.len())])
        .collect();
    words.join(" ")
}

/// Creates a UUID that depends on the random numbers only.
pub(crate) fn new_id(random: &mut Random) -> String {
    let mut digits = |count: usize| -> String {
        (0..count)
            .map(|_| char::from(b"0123456789abcdef"[random.below(16)]))
            .collect()
    };
    format!(
        "{}-{}-4{}-8{}-{}",
        digits(8),
        digits(4),
        digits(3),
        digits(3),
        digits(12)
    )
}

/// Creates metadata. The names of users occur in it, so that a leak is visible.
pub(crate) fn metadata(random: &mut Random, user: &str) -> Value {
    match random.below(6) {
        0 => json!({}),
        1 => json!({ "of": user, "n": random.below(1_000_000) }),
        2 => json!({ "nested": { "list": [1, 2.5, null, true, words(random, 2)] } }),
        3 => json!({ "large": 1e21, "small": -1e-7, "zero": 0 }),
        4 => json!({ "": "", "é": [[], {}] }),
        _ => json!({ "topic": words(random, 3) }),
    }
}

pub(crate) fn time(random: &mut Random) -> String {
    format!(
        "{YEAR_OF_REQUESTS}{:02}-{:02}T0{}:00:00.{:06}Z",
        1 + random.below(12),
        1 + random.below(28),
        random.below(10),
        random.below(1_000_000)
    )
}

/// Creates a valid message of a user.
pub(crate) fn message(random: &mut Random, user: &str) -> Value {
    let text = format!("{} {user}", words(random, 12));
    let call = format!("call-{}", random.below(6));
    let mut message = match random.below(12) {
        0 => json!({
            "role": "ROLE_ASSISTANT",
            "parts": [{ "toolCall": { "id": call, "name": "look_up", "arguments": "{}" } }],
        }),
        1 | 2 => json!({
            "role": "ROLE_TOOL",
            "parts": [{ "toolCallResponse": { "id": call, "response": text } }],
        }),
        3 | 7 | 8 => json!({
            "role": "ROLE_USER",
            "parts": [
                { "text": { "content": text } },
                { "blob": { "mimeType": "image/png", "data": "aGVsbG8=" } },
                { "uri": { "uri": "https://example.com/a.png" } },
                { "generic": { "type": "other", "json": "{}" } },
            ],
        }),
        4 => json!({ "role": "ROLE_SYSTEM", "content": text, "pinned": random.one_in(2) }),
        5 | 6 => {
            json!({ "role": "ROLE_ASSISTANT", "content": text, "tokensUsed": 7, "latencyMs": 30 })
        }
        _ => json!({ "role": "ROLE_USER", "content": text }),
    };
    if random.one_in(5) {
        message["metadata"] = metadata(random, user);
    }
    if random.one_in(6) {
        message["createdAt"] = time(random).into();
    }
    if random.one_in(6) {
        message["contexts"] = json!([
            { "docId": "d", "content": words(random, 5), "score": 0.5, "metadata": { "of": user } },
        ]);
    }
    if random.one_in(10) {
        message["name"] = user.into();
    }
    if random.one_in(10) {
        message["tokenCount"] = random.below(50).into();
    }
    message
}

/// Makes one field of a message invalid.
pub(crate) fn spoil(random: &mut Random, message: &mut Value) {
    let (field, value) = match random.below(6) {
        0 => ("role", json!("ROLE_UNSPECIFIED")),
        1 => ("content", json!("x".repeat(5000))),
        2 => ("id", json!("no-uuid")),
        3 => ("content", json!("nul \0")),
        4 => ("tokensUsed", json!(-1)),
        _ => ("contexts", json!([{ "docId": "x".repeat(600) }])),
    };
    message[field] = value;
}

/// Creates a file in JSON Lines, which one in four times is invalid.
pub(crate) fn file(random: &mut Random, user: &str) -> String {
    let mut lines = vec![json!({
        "format": "conversation-memory",
        "version": 1,
        "conversation": { "user_id": user, "title": words(random, 3), "created_at": time(random) },
    })];
    for _ in 0..random.below(5) {
        lines.push(json!({
            "role": "user",
            "content": format!("{} {user}", words(random, 8)),
            "created_at": time(random),
        }));
    }
    if random.one_in(4) {
        lines.push(json!({ "role": "nobody", "content": user }));
    }
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
