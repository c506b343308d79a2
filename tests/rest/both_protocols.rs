//! Search, exports, branches, compaction and redaction with invalid input: the same result over gRPC
//! and over HTTP.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::caller::{Caller, Protocol};
use test_support::{
    http::contents,
    new_id, new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    rejects_invalid_values_and_writes_nothing,
    page_sizes_above_the_maximum_are_clamped,
    page_tokens_are_bound_to_their_request,
    only_an_empty_search_query_is_rejected,
    unusual_texts_are_found_branched_and_exported,
);

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Rest];

/// A valid request for a method.
fn valid_request(rpc: &str, user: &str, conversation: &str) -> Value {
    match rpc {
        "SearchMessages" => json!({ "userId": user, "query": "word" }),
        "BranchConversation" => json!({ "conversationId": conversation, "atSeq": "1" }),
        "CompactConversation" => {
            json!({ "conversationId": conversation, "uptoSeq": "2", "summary": "Words." })
        }
        "RedactMessages" => json!({ "conversationId": conversation, "seqs": ["1"] }),
        _ => json!({ "conversationId": conversation }),
    }
}

const RPCS: [&str; 6] = [
    "SearchMessages",
    "ExportConversation",
    "BranchConversation",
    "ListBranches",
    "CompactConversation",
    "RedactMessages",
];

pub(crate) fn with_changes(mut request: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

async fn conversation_of(caller: &Caller, user: &str, texts: &[String]) -> String {
    let id = caller.http.conversation(user).await;
    for texts in texts.chunks(100) {
        let messages = texts
            .iter()
            .map(|text| json!({ "role": "ROLE_USER", "content": text }));
        let save = json!({ "conversationId": id, "messages": messages.collect::<Vec<_>>() });
        caller.ok(Protocol::Rest, "SaveMessages", &save).await;
    }
    id
}

/// Methods, changes that make a valid request invalid, and the fields that are rejected.
fn invalid_changes() -> Vec<(&'static str, Value, &'static str)> {
    let long = "é".repeat(256);
    let mut invalid_changes = vec![
        ("SearchMessages", json!({ "userId": "" }), "user_id"),
        ("SearchMessages", json!({ "query": "" }), "query"),
        ("SearchMessages", json!({ "query": "a\0b" }), "query"),
        (
            "SearchMessages",
            json!({ "query": "é".repeat(513) }),
            "query",
        ),
        ("SearchMessages", json!({ "deptId": "\0" }), "dept_id"),
        ("SearchMessages", json!({ "deptId": long }), "dept_id"),
        ("SearchMessages", json!({ "role": 99 }), "role"),
        ("SearchMessages", json!({ "role": -1 }), "role"),
        ("ExportConversation", json!({ "format": 99 }), "format"),
        ("ExportConversation", json!({ "format": -1 }), "format"),
        ("BranchConversation", json!({ "title": "a\0b" }), "title"),
        ("BranchConversation", json!({ "title": long }), "title"),
    ];
    for at_seq in ["0", "-1", "4", "9223372036854775807"] {
        invalid_changes.push(("BranchConversation", json!({ "atSeq": at_seq }), "at_seq"));
    }
    for (flaw, field) in [
        (json!({ "uptoSeq": "-1" }), "upto_seq"),
        (json!({ "uptoSeq": "4" }), "upto_seq"),
        (json!({ "uptoSeq": "0" }), "summary"),
        (json!({ "summary": "" }), "summary"),
        (json!({ "summary": "a\0b" }), "summary"),
        (json!({ "summary": "x".repeat((1 << 20) + 1) }), "summary"),
        (json!({ "tokenCount": -1 }), "token_count"),
        (json!({ "requestId": "x".repeat(129) }), "request_id"),
    ] {
        invalid_changes.push(("CompactConversation", flaw, field));
    }
    for (seqs, field) in [
        (json!([]), "seqs"),
        (json!(["0"]), "seqs[0]"),
        (json!(["1", "-1"]), "seqs[1]"),
        (json!(vec!["1"; 101]), "seqs"),
    ] {
        invalid_changes.push(("RedactMessages", json!({ "seqs": seqs }), field));
    }
    for rpc in ["SearchMessages", "ListBranches"] {
        for size in [-1, i32::MIN] {
            invalid_changes.push((rpc, json!({ "pageSize": size }), "page_size"));
        }
    }
    for rpc in RPCS {
        for user in ["a\0b", &long] {
            invalid_changes.push((rpc, json!({ "userId": user }), "user_id"));
        }
        let braced = format!("{{{}}}", new_id());
        for id in ["x", " ", "a\0b", "../../etc", &braced, &new_id()[1..]] {
            invalid_changes.push((rpc, json!({ "conversationId": id }), "conversation_id"));
        }
    }
    invalid_changes
}

async fn rejects_invalid_values_and_writes_nothing(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let caller = Caller::new(&sidecar).await;
    let user = new_user();
    let id = conversation_of(&caller, &user, &["word".to_owned(), "2".into(), "3".into()]).await;
    for protocol in PROTOCOLS {
        for (rpc, flaw, field) in invalid_changes() {
            let bad = with_changes(valid_request(rpc, &user, &id), &flaw);
            let rejected = caller.call(protocol, rpc, &bad).await;
            let found = (rejected.status.as_str(), rejected.field.as_str());
            assert_eq!(
                found,
                ("INVALID_ARGUMENT", field),
                "{protocol:?} {rpc} {flaw}"
            );
        }
        for rpc in &RPCS[1..] {
            let bad = with_changes(
                valid_request(rpc, &user, &id),
                &json!({ "conversationId": "" }),
            );
            let rejected = caller.call(protocol, rpc, &bad).await;
            match protocol {
                Protocol::Grpc => assert_eq!(rejected.field, "conversation_id"),
                // Without the id it is another path, which does not exist.
                Protocol::Rest => assert_eq!(rejected.status, "NOT_FOUND"),
            }
        }
    }
    // Values that the types of protobuf cannot represent.
    for (rpc, flaw, field) in [
        (
            "SearchMessages",
            json!({ "pageSize": 1_u64 << 31 }),
            "page_size",
        ),
        ("ListBranches", json!({ "pageSize": "many" }), "page_size"),
        (
            "BranchConversation",
            json!({ "atSeq": 1_u64 << 63 }),
            "at_seq",
        ),
        ("BranchConversation", json!({ "atSeq": 1.5 }), "at_seq"),
        ("ExportConversation", json!({ "format": "PDF" }), "format"),
    ] {
        let bad = with_changes(valid_request(rpc, &user, &id), &flaw);
        let rejected = caller.call(Protocol::Rest, rpc, &bad).await;
        assert_eq!(rejected.field, field, "{rpc} {flaw}");
    }
    let read = json!({ "conversationId": id });
    let listed = caller.ok(Protocol::Rest, "ListBranches", &read).await;
    assert_eq!(listed, json!({}));
    let whole = caller.ok(Protocol::Rest, "GetConversation", &read).await;
    assert_eq!(contents(&whole), ["word", "2", "3"]);
    for (protocol, rpc) in PROTOCOLS
        .into_iter()
        .flat_map(|protocol| RPCS.map(|rpc| (protocol, rpc)))
    {
        let upper = json!({ "conversationId": id.to_uppercase() });
        caller
            .ok(
                protocol,
                rpc,
                &with_changes(valid_request(rpc, &user, &id), &upper),
            )
            .await;
    }
}

async fn page_sizes_above_the_maximum_are_clamped(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let caller = Caller::new(&sidecar).await;
    let user = new_user();
    let id = conversation_of(&caller, &user, &vec!["word".to_owned(); 101]).await;
    for _ in 0..101 {
        let branch = valid_request("BranchConversation", &user, &id);
        caller
            .ok(Protocol::Grpc, "BranchConversation", &branch)
            .await;
    }
    for protocol in PROTOCOLS {
        for (rpc, list) in [
            ("SearchMessages", "hits"),
            ("ListBranches", "conversations"),
        ] {
            for size in [101, i32::MAX] {
                let request =
                    with_changes(valid_request(rpc, &user, &id), &json!({ "pageSize": size }));
                let page = caller.ok(protocol, rpc, &request).await;
                assert_eq!(
                    page[list].as_array().unwrap().len(),
                    100,
                    "{protocol:?} {rpc}"
                );
                assert!(page["nextPageToken"].is_string());
            }
        }
    }
}

async fn page_tokens_are_bound_to_their_request(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let caller = Caller::new(&sidecar).await;
    let user = new_user();
    let id = conversation_of(&caller, &user, &["word".to_owned(), "word".into()]).await;
    let mut branches = Vec::new();
    for _ in 0..2 {
        let branch = valid_request("BranchConversation", &user, &id);
        let branched = caller
            .ok(Protocol::Grpc, "BranchConversation", &branch)
            .await;
        branches.push(branched["conversation"]["id"].clone());
    }
    for (protocol, rpc, others) in PROTOCOLS.into_iter().flat_map(|protocol| {
        let search = vec![
            json!({ "userId": new_user() }),
            json!({ "query": "words" }),
            json!({ "conversationId": id }),
            json!({ "deptId": "hr" }),
            json!({ "role": "ROLE_USER" }),
        ];
        let list = vec![
            json!({ "conversationId": branches[0] }),
            json!({ "userId": user }),
        ];
        [
            (protocol, "SearchMessages", search),
            (protocol, "ListBranches", list),
        ]
    }) {
        let first = with_changes(valid_request(rpc, &user, &id), &json!({ "pageSize": 1 }));
        let page = caller.ok(protocol, rpc, &first).await;
        let token = page["nextPageToken"].as_str().unwrap();
        let next = with_changes(first, &json!({ "pageToken": token }));
        caller.ok(protocol, rpc, &next).await;
        let elsewhere = match rpc {
            "ListBranches" => "SearchMessages",
            _ => "ListBranches",
        };
        let foreign = with_changes(
            valid_request(elsewhere, &user, &id),
            &json!({ "pageToken": token }),
        );
        let mut bad = vec![(elsewhere, foreign)];
        for token in invalid_tokens(token) {
            bad.push((
                rpc,
                with_changes(next.clone(), &json!({ "pageToken": token })),
            ));
        }
        bad.extend(
            others
                .iter()
                .map(|other| (rpc, with_changes(next.clone(), other))),
        );
        for (rpc, bad) in bad {
            let rejected = caller.call(protocol, rpc, &bad).await;
            let found = (rejected.status.as_str(), rejected.field.as_str());
            assert_eq!(
                found,
                ("INVALID_ARGUMENT", "page_token"),
                "{protocol:?} {bad}"
            );
        }
    }
}

/// Invalid variants of a page token; the last one is of another version of the server.
fn invalid_tokens(token: &str) -> [String; 4] {
    let changed = |at: usize| {
        let mut bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
        bytes[at] ^= 2;
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let cut = token[1..].to_owned();
    ["garbage".to_owned(), cut, changed(3), changed(0)]
}

async fn only_an_empty_search_query_is_rejected(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let caller = Caller::new(&sidecar).await;
    let user = new_user();
    conversation_of(&caller, &user, &["word".to_owned()]).await;
    for query in [
        "((( & ! \\ <->",
        "the of and",
        "\"",
        "'",
        "-",
        "or",
        "word \"",
        "word:* & ! other | <2>",
        "NEAR(word, 3) content:word word* ^word",
        "'; DROP TABLE messages; --",
        "%00%s ${word} \\u0000",
        "\u{feff}\u{202e}\u{200b} \t\r\n",
        "👩‍👩‍👧‍👦 العربية",
        &"w".repeat(512),
        &"\"".repeat(512),
        &"- ".repeat(256),
    ] {
        let request = json!({ "userId": user, "query": query });
        let [grpc, rest] =
            PROTOCOLS.map(|protocol| caller.ok(protocol, "SearchMessages", &request));
        assert_eq!(grpc.await, rest.await, "{query}");
    }
    let request = json!({ "userId": user, "query": "\"word" });
    let found = caller.ok(Protocol::Rest, "SearchMessages", &request).await;
    assert_eq!(found["hits"][0]["snippet"], "⟦word⟧");
}

/// Texts that are dangerous in other contexts, each with a word that finds it, and whether a
/// spreadsheet would evaluate it as a formula.
fn unusual_texts() -> Vec<(String, bool)> {
    let mut words = "needle0".to_owned();
    let mut number = 0;
    while words.len() < (1 << 20) - 8 {
        words.extend([" ", &number.to_string()]);
        number += 1;
    }
    let planes: String = (0..17)
        .filter_map(|plane| char::from_u32(plane * 0x1_0000 + 0x41))
        .collect();
    let plain = [
        words,
        format!("needle1 {}", "w".repeat(3_000)),
        format!("{planes} needle2"),
        "\u{feff}\u{202e}\u{200b}\u{1}\u{7f}\r\n\t\u{2028}\u{fffd}\u{10ffff} needle3".to_owned(),
        "'; DROP TABLE messages; -- <script>alert(1)</script> %s \\ \\u0000 needle4".to_owned(),
        "العربية עברית 👩‍👩‍👧‍👦 needle5".to_owned(),
        "\"quoted\", \"\"\r\n,; needle6".to_owned(),
    ];
    let formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"];
    let formulas = formulas.into_iter().zip(7..);
    let formulas = formulas.map(|(text, number)| (format!("{text} needle{number}"), true));
    plain
        .map(|text| (text, false))
        .into_iter()
        .chain(formulas)
        .collect()
}

async fn unusual_texts_are_found_branched_and_exported(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let caller = Caller::new(&sidecar).await;
    let user = new_user();
    let (texts, formulas): (Vec<_>, Vec<_>) = unusual_texts().into_iter().unzip();
    let id = conversation_of(&caller, &user, &texts).await;
    let branch = json!({ "conversationId": id, "atSeq": texts.len(), "title": texts[4] });
    for protocol in PROTOCOLS {
        for (number, text) in texts.iter().enumerate() {
            let query = format!("needle{number}");
            let search = json!({ "userId": user, "query": query, "conversationId": id });
            let found = caller.ok(protocol, "SearchMessages", &search).await;
            assert_eq!(found["hits"].as_array().map(Vec::len), Some(1), "{query}");
            assert!(found["hits"][0]["message"]["content"] == **text, "{query}");
        }
        let branched = caller.ok(protocol, "BranchConversation", &branch).await;
        assert_eq!(branched["conversation"]["title"], texts[4]);
        let branch = branched["conversation"]["id"].as_str().unwrap();
        let listed = caller
            .ok(protocol, "ListBranches", &valid_request("", &user, &id))
            .await;
        assert_eq!(listed["conversations"][0], branched["conversation"]);
        let history = json!({ "conversationId": branch, "limit": 100 });
        let history = caller.ok(protocol, "GetHistory", &history).await;
        assert!(contents(&history) == texts);
        let file = async |format: &str| {
            let export = json!({ "conversationId": branch, "format": format });
            let file = caller.ok(protocol, "ExportConversation", &export).await;
            file.as_str().unwrap().to_owned()
        };
        let whole: Value = serde_json::from_str(&file("EXPORT_FORMAT_JSON").await).unwrap();
        assert!(contents(&whole) == texts);
        let lines = file("EXPORT_FORMAT_JSONL").await;
        let lines = lines.split_terminator('\n').skip(1);
        let lines: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(contents(&json!({ "messages": lines })) == texts);
        let table = file("EXPORT_FORMAT_CSV").await;
        let mut table = csv::Reader::from_reader(table.as_bytes());
        assert_eq!(&table.headers().unwrap()[3], "content");
        let cells = table.records().map(|row| row.unwrap()[3].to_owned());
        let safe = texts.iter().zip(&formulas).map(|(text, is_formula)| {
            let mark = if *is_formula { "'" } else { "" };
            format!("{mark}{text}")
        });
        assert!(cells.eq(safe), "{protocol:?}");
    }
}
