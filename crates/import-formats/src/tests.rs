//! Samples of each format and irregularity, in `tests/samples`.

mod irregular;

use std::io::Cursor;

use domain::{Message, RawPart, UserId, from_unix_time};

use super::*;

fn options() -> ImportOptions {
    ImportOptions {
        user_id: UserId::parse("ana").unwrap(),
        now: from_unix_time(1_800_000_000, 0).unwrap(),
    }
}

fn read_bytes(bytes: &[u8], format: Option<Format>) -> Vec<Outcome> {
    let reader = ConversationReader::new(Cursor::new(bytes), format, options());
    reader.map(Result::unwrap).collect()
}

fn sample(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples");
    std::fs::read(format!("{folder}/{name}")).unwrap()
}

fn read(name: &str) -> Vec<Outcome> {
    read_bytes(&sample(name), None)
}

/// A conversation or the reason of its rejection, as short texts.
fn show(outcome: &Outcome) -> Vec<String> {
    let imported = match outcome {
        Outcome::Converted(imported) => imported,
        Outcome::Archive(content) => return vec![format!("archive of {} bytes", content.len())],
        Outcome::Rejected(rejection) => return vec![format!("rejected: {}", rejection.reason)],
    };
    let mut shown: Vec<_> = imported.messages.iter().map(message).collect();
    for branch in &imported.branches {
        let parent = if branch.parent_id == imported.conversation.id {
            "main"
        } else {
            "branch"
        };
        shown.push(format!("branch of {parent} at {}", branch.at_seq));
        shown.extend(branch.messages.iter().map(message));
    }
    shown
}

fn message(message: &Message) -> String {
    let part = |part: &RawPart| match part {
        RawPart::Text { content } => content.replace('\n', "/"),
        RawPart::Reasoning { content } => format!("thinks {}", content.replace('\n', "/")),
        RawPart::ToolCall {
            id,
            name,
            arguments,
        } => format!("call {id} {name}({arguments})"),
        RawPart::ToolCallResponse { id, response } => format!("result {id} {response}"),
        RawPart::Blob {
            mime_type, bytes, ..
        } => format!("<{mime_type} {bytes}>"),
        RawPart::Uri { uri, .. } => format!("<{uri}>"),
        RawPart::File {
            file_id, modality, ..
        } => format!("<file {file_id} {modality}>"),
        RawPart::Generic { generic_type, .. } => format!("<{generic_type}>"),
    };
    let parts = message.raw_parts();
    let text = if parts.is_empty() {
        message.content.as_str().replace('\n', "/")
    } else {
        parts.iter().map(part).collect::<Vec<_>>().join(" | ")
    };
    format!("{} {}: {text}", message.seq, message.role.as_str())
}

fn shown(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    outcomes.iter().map(show).collect()
}

fn converted(outcome: &Outcome) -> &ImportedConversation {
    match outcome {
        Outcome::Converted(imported) => imported,
        other => panic!("{:?}", show(other)),
    }
}

#[test]
fn trees_of_chatgpt_become_branches() {
    let outcomes = read("chatgpt.json");
    let expected: [&[&str]; 6] = [
        &[
            "1 user: What is 2+2? | [attachment: sum.pdf] | <file file-9 >",
            "2 assistant: 4",
            "3 user: <file file-1 image> | Plot it",
            "4 assistant: thinks Plan/Use python",
            "5 assistant: call call python(plot(4))",
            "6 tool: result call <plot>",
            "7 assistant: Done.",
            "branch of main at 1",
            "2 assistant: 5",
        ],
        &[
            "1 user: Parent is missing",
            "branch of main at 0",
            "1 assistant: Its parent was deleted",
        ],
        &["1 user: cycle 1", "2 assistant: cycle 2"],
        &["rejected: contains no messages"],
        &[
            "1 user: edited first",
            "branch of main at 0",
            "1 user: first",
        ],
        &[
            "rejected: appears to be null; expected a conversation of ChatGPT, Claude, ShareGPT, OpenAI, LibreChat or Open WebUI",
        ],
    ];
    assert_eq!(shown(&outcomes), expected);
    let tree = converted(&outcomes[0]);
    assert_eq!(tree.source_id.as_deref(), Some("c-tree"));
    assert_eq!(tree.conversation.title.as_ref().unwrap().as_str(), "Sums");
    assert_eq!(tree.conversation.created_at.timestamp(), 1_700_000_000);
    assert_eq!(
        tree.messages[0].created_at.timestamp_millis(),
        1_700_000_000_500
    );
    assert_eq!(tree.conversation.last_seq, 7);
}

#[test]
fn reads_claude() {
    let expected: [&[&str]; 3] = [
        &[
            "1 user: [attachment: a.txt]/abc | [file: b.png] | <file f-1 image> | Summarize",
            "2 assistant: thinks Search first | call t1 web_search({\"q\":\"leave\"})",
            "3 tool: result t1 25 days",
            "4 assistant: 25 days.",
            "5 user: Thanks",
        ],
        &["rejected: contains no messages"],
        &[
            "1 user: Hi",
            "2 assistant: Hello again",
            "branch of main at 1",
            "2 assistant: Hello",
        ],
    ];
    assert_eq!(shown(&read("claude.json")), expected);
}

#[test]
fn reads_sharegpt() {
    let expected: [&[&str]; 4] = [
        &["1 user: Hi", "2 assistant: Hello"],
        &[
            "1 system: Be brief",
            "2 user: Weather?",
            "3 assistant: call call-1 weather({\"city\":\"Rome\"})",
            "4 tool: result call-1 sunny",
            "5 assistant: Sunny",
        ],
        &["rejected: contains no messages"],
        &["rejected: message 1: \"narrator\" is no known author"],
    ];
    let outcomes = read("sharegpt.json");
    assert_eq!(shown(&outcomes), expected);
    let title = &converted(&outcomes[1]).conversation.title;
    assert_eq!(title.as_ref().unwrap().as_str(), "Weather?");
}

#[test]
fn reads_openai() {
    let expected: [&[&str]; 1] = [&[
        "1 system: Be brief",
        "2 user: What is this? | <image/png 8> | <https://example.com/a.png>",
        "3 assistant: call c1 find({\"q\":1})",
        "4 tool: result c1 12",
        "5 assistant: 12 days.",
    ]];
    assert_eq!(shown(&read("openai-messages.json")), expected);
    let lines: [&[&str]; 6] = [
        &["1 system: s", "2 user: q", "3 assistant: a"],
        &[
            "1 user: q",
            "2 assistant: call call-1 f({})",
            "3 tool: result call-1 1",
            "4 assistant: one",
        ],
        &["1 user: orphans", "2 assistant: [tool result]/12"],
        &["rejected: is not complete: the file was probably cut off here"],
        &["rejected: message 1: role must be system, user, assistant or tool, not \"critic\""],
        &[
            "rejected: appears to be an object with the members prompt; expected a conversation of ChatGPT, Claude, ShareGPT, OpenAI, LibreChat or Open WebUI",
        ],
    ];
    assert_eq!(shown(&read("openai-fine-tuning.jsonl")), lines);
}

#[test]
fn reads_librechat() {
    let expected: [&[&str]; 1] = [&[
        "1 user: Roll | [file: a.png] | <file f1 image>",
        "2 assistant: Five",
        "branch of main at 1",
        "2 assistant: thinks dice | Rolling | call t1 roll({})",
        "3 tool: result t1 6",
        "4 assistant: Six",
    ]];
    assert_eq!(shown(&read("librechat.json")), expected);
    let recursive: [&[&str]; 1] = [&[
        "1 user: Hi",
        "2 assistant: Hey",
        "branch of main at 1",
        "2 assistant: Hello",
    ]];
    assert_eq!(shown(&read("librechat-recursive.json")), recursive);
}

#[test]
fn reads_open_webui() {
    let expected: [&[&str]; 2] = [
        &[
            "1 user: Who? | <image/png 8> | [file: a.pdf] | <file f1 >",
            "2 assistant: A cat",
            "branch of main at 1",
            "2 assistant: A dog",
        ],
        &["1 user: Hi", "2 assistant: [error] overloaded"],
    ];
    assert_eq!(shown(&read("open-webui.json")), expected);
}

#[test]
fn reads_irregular_texts_and_files() {
    for (name, expected) in [
        ("utf-16.json", vec!["1 user: é 😀", "2 assistant: ok"]),
        (
            "lone-surrogate.json",
            vec!["1 user: a\u{fffd}\u{fffd}b", "2 assistant: ok"],
        ),
        (
            "page.html",
            vec!["rejected: is not valid JSON, at line 1, column 1 of the conversation"],
        ),
    ] {
        assert_eq!(show(&read(name)[0]), expected, "{name}");
    }
    assert!(read("empty.json").is_empty() && read("empty-list.json").is_empty());
    let truncated = shown(&read("truncated.json"));
    assert_eq!(truncated.len(), 2);
    assert_eq!(truncated[0], ["1 user: Hi", "2 assistant: Hello"]);
    assert_eq!(
        truncated[1],
        ["rejected: the file ends within a conversation or a list: it was cut off"]
    );
}

#[test]
fn every_truncation_gives_conversations_or_reasons() {
    for name in [
        "chatgpt.json",
        "openai-messages.json",
        "openai-fine-tuning.jsonl",
        "open-webui.json",
    ] {
        let bytes = sample(name);
        let complete = read(name)
            .iter()
            .filter(|it| matches!(it, Outcome::Converted(_)))
            .count();
        for cut in (1..bytes.len() - 2).step_by(37) {
            let outcomes = read_bytes(&bytes[..cut], None);
            let converted = outcomes
                .iter()
                .filter(|it| matches!(it, Outcome::Converted(_)))
                .count();
            assert!(
                !outcomes.is_empty() && converted <= complete,
                "{name} {cut}"
            );
        }
    }
}

#[test]
fn another_format_than_the_named_one_is_rejected() {
    let outcomes = read_bytes(&sample("claude.json"), Some(Format::ChatGpt));
    assert_eq!(
        show(&outcomes[0]),
        [
            "rejected: appears to be a conversation in the format claude; expected the format chatgpt"
        ]
    );
    let outcomes = read_bytes(&sample("openai-messages.json"), Some(Format::ShareGpt));
    assert!(outcomes.iter().all(|it| matches!(it, Outcome::Rejected(_))));
}

#[test]
fn ids_are_the_same_in_each_import_and_unique() {
    let ids = |name: &str| {
        let mut ids = Vec::new();
        for outcome in &read(name) {
            let Outcome::Converted(imported) = outcome else {
                continue;
            };
            ids.push(imported.conversation.id.as_uuid());
            ids.extend(imported.messages.iter().map(|message| message.id.as_uuid()));
            for branch in &imported.branches {
                ids.push(branch.id.as_uuid());
                ids.extend(branch.messages.iter().map(|message| message.id.as_uuid()));
            }
        }
        ids
    };
    for name in [
        "chatgpt.json",
        "claude.json",
        "sharegpt.json",
        "openai-fine-tuning.jsonl",
    ] {
        let first = ids(name);
        assert_eq!(first, ids(name));
        let unique: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(unique.len(), first.len(), "{name}");
    }
}

#[test]
fn a_conversation_over_the_limit_does_not_affect_the_next_one() {
    let large = "x".repeat(MAX_CONVERSATION_BYTES);
    let file = format!(
        "[{{\"conversations\":[{{\"from\":\"human\",\"value\":\"{large}\"}}]}},\
         {{\"conversations\":[{{\"from\":\"human\",\"value\":\"Hi\"}}]}}]"
    );
    let outcomes = shown(&read_bytes(file.as_bytes(), None));
    assert!(outcomes[0][0].contains("64 MiB"), "{:?}", outcomes[0]);
    assert_eq!(outcomes[1], ["1 user: Hi"]);
}

proptest::proptest! {
    #[test]
    fn arbitrary_texts_are_no_defect(text in "[\\[\\]{}\":,a-z0-9\\\\\n ]{0,200}") {
        read_bytes(text.as_bytes(), None);
    }
}
