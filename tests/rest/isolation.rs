//! Isolation: a conversation of another user is indistinguishable from one that does not exist,
//! over gRPC and over HTTP.

use serde_json::{Value, json};

use crate::{
    both_ways::{WAYS, with},
    caller::{Caller, Way},
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
            with(
                claim.clone(),
                &json!({ "messages": [{ "role": "ROLE_USER", "content": "x" }] }),
            ),
        ),
        (
            "SearchMessages",
            with(claim.clone(), &json!({ "query": "word" })),
        ),
        (
            "BranchConversation",
            with(claim.clone(), &json!({ "atSeq": "1" })),
        ),
        // The message does not exist either, which must not be visible.
        (
            "BranchConversation",
            with(claim.clone(), &json!({ "atSeq": "99" })),
        ),
        (
            "TruncateConversation",
            with(claim.clone(), &json!({ "afterSeq": "0" })),
        ),
        (
            "GetHistory",
            with(claim.clone(), &json!({ "minSeq": "99" })),
        ),
        (
            "GetHistory",
            with(
                claim.clone(),
                &json!({ "consistency": "CONSISTENCY_STRONG" }),
            ),
        ),
    ];
    for format in ["JSON", "JSONL", "CSV"] {
        let format = json!({ "format": format!("EXPORT_FORMAT_{format}") });
        calls.push(("ExportConversation", with(claim.clone(), &format)));
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
    let begun = caller.ok(Way::Grpc, "BeginTurn", &begun).await;
    let id = begun["conversation"]["id"].as_str().unwrap();
    let session = json!({ "sessionId": begun["session"]["id"] });
    caller.http.say(id, "word").await;
    let mut calls = foreign_calls(&stranger, id);
    let resume = with(session.clone(), &json!({ "userId": stranger }));
    calls.push(("BeginTurn", resume));
    let refusals = async || {
        let mut refusals = Vec::new();
        for (way, (rpc, request)) in WAYS
            .into_iter()
            .flat_map(|way| calls.iter().map(move |call| (way, call)))
        {
            let refused = caller.call(way, rpc, request).await;
            assert_eq!(
                refused.status, "NOT_FOUND",
                "{way:?} {rpc}: {}",
                refused.told
            );
            refusals.push((way, rpc, refused.told));
        }
        refusals
    };
    // The owner reads it, so that it is in the recent window if there is one.
    let read = json!({ "conversationId": id });
    let whole = caller.ok(Way::Rest, "GetHistory", &read).await;
    let of_foreign = refusals().await;
    let untouched = caller.ok(Way::Rest, "GetHistory", &read).await;
    assert_eq!(untouched["messages"], whole["messages"]);
    caller.ok(Way::Rest, "EndSession", &session).await;
    caller.ok(Way::Rest, "DeleteConversation", &read).await;
    assert_eq!(of_foreign, refusals().await);
}
