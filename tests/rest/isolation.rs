//! Isolation: a conversation of another user is indistinguishable from one that does not exist,
//! over gRPC and over HTTP.

use serde_json::{Value, json};

use crate::{
    both_protocols::{PROTOCOLS, with_changes},
    caller::{Caller, Protocol},
};
use test_support::{
    new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(foreign_conversations_look_like_missing_ones);

/// Each call that names a conversation, made by a user who does not own it.
fn foreign_calls(stranger: &str, id: &str) -> Vec<(&'static str, Value)> {
    let claim = json!({ "conversationId": id, "userId": stranger });
    let mut calls = vec![
        (
            "UpdateConversation",
            json!({ "conversation": { "id": id, "title": "mine" }, "userId": stranger }),
        ),
        (
            "SaveMessages",
            with_changes(
                claim.clone(),
                &json!({ "messages": [{ "role": "ROLE_USER", "content": "x" }] }),
            ),
        ),
        (
            "SearchMessages",
            with_changes(claim.clone(), &json!({ "query": "word" })),
        ),
        (
            "BranchConversation",
            with_changes(claim.clone(), &json!({ "atSeq": "1" })),
        ),
        // The message does not exist either, which must not be visible.
        (
            "BranchConversation",
            with_changes(claim.clone(), &json!({ "atSeq": "99" })),
        ),
        (
            "TruncateConversation",
            with_changes(claim.clone(), &json!({ "afterSeq": "0" })),
        ),
        (
            "CompactConversation",
            with_changes(
                claim.clone(),
                &json!({ "uptoSeq": "1", "summary": "s", "expectedLastSeq": "99" }),
            ),
        ),
        (
            "RedactMessages",
            with_changes(claim.clone(), &json!({ "seqs": ["1"] })),
        ),
        (
            "GetBlob",
            with_changes(claim.clone(), &json!({ "seq": "1", "part": 0 })),
        ),
        (
            "GetHistory",
            with_changes(claim.clone(), &json!({ "minSeq": "99" })),
        ),
        (
            "GetHistory",
            with_changes(
                claim.clone(),
                &json!({ "consistency": "CONSISTENCY_STRONG" }),
            ),
        ),
    ];
    for format in ["JSON", "JSONL", "CSV"] {
        let format = json!({ "format": format!("EXPORT_FORMAT_{format}") });
        calls.push(("ExportConversation", with_changes(claim.clone(), &format)));
    }
    for rpc in [
        "BeginTurn",
        "GetHistory",
        "GetConversation",
        "ListMessages",
        "ListBranches",
        "CreateSession",
        "DeleteConversation",
    ] {
        calls.push((rpc, claim.clone()));
    }
    calls
}

async fn foreign_conversations_look_like_missing_ones(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let caller = Caller::new(&sidecar).await;
    let stranger = new_user();
    let begun = json!({ "userId": new_user() });
    let begun = caller.ok(Protocol::Grpc, "BeginTurn", &begun).await;
    let id = begun["conversation"]["id"].as_str().unwrap();
    let session = json!({ "sessionId": begun["session"]["id"] });
    caller.http.save_text(id, "word").await;
    let mut calls = foreign_calls(&stranger, id);
    let resume = with_changes(session.clone(), &json!({ "userId": stranger }));
    calls.push(("BeginTurn", resume));
    let rejections = async || {
        let mut rejections = Vec::new();
        for (protocol, (rpc, request)) in PROTOCOLS
            .into_iter()
            .flat_map(|protocol| calls.iter().map(move |call| (protocol, call)))
        {
            let rejected = caller.call(protocol, rpc, request).await;
            assert_eq!(
                rejected.status, "NOT_FOUND",
                "{protocol:?} {rpc}: {}",
                rejected.visible_text
            );
            rejections.push((protocol, rpc, rejected.visible_text));
        }
        rejections
    };
    // The owner reads it, so that it is in the recent window if there is one.
    let read = json!({ "conversationId": id });
    let whole = caller.ok(Protocol::Rest, "GetHistory", &read).await;
    let of_foreign = rejections().await;
    let untouched = caller.ok(Protocol::Rest, "GetHistory", &read).await;
    assert_eq!(untouched["messages"], whole["messages"]);
    caller.ok(Protocol::Rest, "EndSession", &session).await;
    caller.ok(Protocol::Rest, "DeleteConversation", &read).await;
    assert_eq!(of_foreign, rejections().await);
}
