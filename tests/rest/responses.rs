//! Validates real responses with the OpenAPI document.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{both_protocols::with_changes, recorder::Recorder};
use test_support::{
    eventually, new_id, new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(responses_match_the_document, a_wrong_document_is_detected,);

/// Settings with which responses have all fields.
const SETTINGS: [(&str, &str); 2] = [("COMPACTION_TOKENS", "1"), ("OPERATORS", "*")];

async fn responses_match_the_document(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SETTINGS).await;
    let recorder = Recorder::new(&sidecar).await;
    let user = new_user();
    let conversation = conversation(&recorder, &user).await;
    reads(&recorder, &user, &conversation).await;
    parts(&recorder, &user).await;
    branches(&recorder, &user, &conversation).await;
    files(&recorder, &user, &conversation).await;
    searches(&recorder, &user, &conversation).await;
    sessions_and_turns(&recorder, &user, &conversation).await;
    items(&recorder, &user).await;
    sparse(&recorder).await;
    rejections(&recorder, &conversation).await;
    deletions(&recorder, &user, &conversation).await;
    drop(sidecar);
    rejections_of_an_overloaded_sidecar(&form, &recorder).await;
    let judged = recorder.validate(&recorder.caller.document).await;
    assert!(judged.wrong.is_empty(), "{:#?}", judged.wrong);
    // A new method, field or parameter must be used in one of the functions below.
    assert!(judged.unseen.is_empty(), "{:#?}", judged.unseen);
}

/// A plain message with every field that a caller can set.
fn message(role: &str, content: &str) -> Value {
    json!({
        "id": new_id(),
        "role": role,
        "content": content,
        "name": "Ana",
        "pinned": role == "ROLE_SYSTEM",
        "tokenCount": 3,
        "tokensUsed": 7,
        "latencyMs": 0,
        "createdAt": "2024-02-29T12:00:00.000001Z",
        "metadata": { "none": null, "list": [1, 2.5, "x", [], {}], "yes": true },
        "contexts": [
            { "docId": "d", "content": "text", "score": -0.25, "metadata": { "page": 1 } },
            {},
        ],
    })
}

async fn conversation(recorder: &Recorder, user: &str) -> String {
    let create = json!({
        "userId": user,
        "deptId": "hr",
        "title": "Time off",
        "metadata": { "model": "m" },
        "conversationId": new_id(),
    });
    let created = recorder.ok("CreateConversation", create).await;
    let id = created["conversation"]["id"].as_str().unwrap();
    let roles = ["USER", "ASSISTANT", "SYSTEM", "TOOL"];
    let messages = roles.map(|role| message(&format!("ROLE_{role}"), "vacation days"));
    let mut save = json!({
        "conversationId": id,
        "userId": user,
        "messages": messages,
        "requestId": "turn-1",
        "expectedLastSeq": "0",
        "sessionId": new_id(),
    });
    save["messages"][0]["conversationId"] = id.into();
    recorder.ok("SaveMessages", save.clone()).await;
    let again = recorder.ok("SaveMessages", save).await;
    assert_eq!(again["replayed"], true);
    let update = json!({
        "conversation": { "id": id, "title": "Days off", "metadata": { "a": 1 } },
        "updateMask": "title,metadata",
        "userId": user,
    });
    recorder.ok("UpdateConversation", update).await;
    id.to_owned()
}

async fn reads(recorder: &Recorder, user: &str, id: &str) {
    let history = json!({
        "conversationId": id,
        "userId": user,
        "limit": 2,
        "maxTokens": 5,
        "startOnUser": true,
        "minSeq": "1",
        "consistency": "CONSISTENCY_STRONG",
        "sessionId": new_id(),
        "includeContexts": true,
    });
    recorder.ok("GetHistory", history).await;
    for _ in 0..2 {
        // The first read is from the store, the second from the window if there is one.
        let history = json!({ "conversationId": id, "limit": 2 });
        let read = recorder.ok("GetHistory", history).await;
        assert_eq!(read["olderOmitted"], true);
        assert_eq!(read["compactionDue"], true);
    }
    for omit in [true, false] {
        let read = json!({
            "conversationId": id,
            "userId": user,
            "omitMessages": omit,
            "pageSize": 2,
            "includeContexts": true,
            "includeBlobs": true,
        });
        recorder.ok("GetConversation", read).await;
    }
    let mut list = json!({
        "conversationId": id,
        "userId": user,
        "pageSize": 2,
        "newestFirst": true,
        "includeContexts": true,
        "includeBlobs": true,
    });
    let page = recorder.ok("ListMessages", list.clone()).await;
    list["pageToken"] = page["nextPageToken"].clone();
    recorder.ok("ListMessages", list).await;
}

/// Messages with parts of all types.
fn messages_with_parts() -> Value {
    let media = |kind: &str, name: &str| json!({ kind: { "mimeType": "image/png", "modality": "image", name: "eA==" } });
    json!([
        { "role": "ROLE_USER", "parts": [
            { "text": { "content": "What is this?" } },
            media("blob", "data"),
            media("uri", "uri"),
            media("file", "fileId"),
            { "generic": { "type": "other", "json": "{}" } },
        ] },
        { "role": "ROLE_ASSISTANT", "parts": [
            { "reasoning": { "content": "I have to look." } },
            { "toolCall": { "id": "1", "name": "look", "arguments": "{}" } },
        ] },
        { "role": "ROLE_TOOL", "parts": [
            { "toolCallResponse": { "id": "1", "response": "a cat" } },
        ] },
    ])
}

async fn parts(recorder: &Recorder, user: &str) {
    let created = recorder.ok("CreateConversation", json!({ "userId": user }));
    let created = created.await;
    let id = &created["conversation"]["id"];
    let save = json!({ "conversationId": id, "messages": messages_with_parts() });
    recorder.ok("SaveMessages", save).await;
    let claim = json!({ "conversationId": id, "userId": user });
    let history = recorder.ok("GetHistory", claim.clone()).await;
    assert_eq!(history["messages"][0]["parts"][1]["blob"]["data"], "eA==");
    let mut blob = claim.clone();
    (blob["seq"], blob["part"]) = ("1".into(), 1.into());
    recorder.ok("GetBlob", blob).await;
    let mut compact = claim.clone();
    compact["uptoSeq"] = "1".into();
    compact["summary"] = "A question about a picture.".into();
    compact["expectedLastSeq"] = "3".into();
    compact["requestId"] = "compact".into();
    compact["tokenCount"] = 6.into();
    recorder.ok("CompactConversation", compact).await;
    let history = recorder.ok("GetHistory", claim.clone()).await;
    assert_eq!(history["messages"][0]["isSummary"], true);
    recorder.ok("GetConversation", claim.clone()).await;
    let transfer = with_changes(
        claim.clone(),
        &json!({ "newUserId": user, "newDeptId": "hr" }),
    );
    let transferred = recorder.ok("TransferConversation", transfer).await;
    assert_eq!(transferred["transferredIds"].as_array().unwrap().len(), 1);
    let mut redact = claim;
    redact["seqs"] = json!(["1"]);
    let redacted = recorder.ok("RedactMessages", redact).await;
    assert_eq!(redacted["messages"][0]["redacted"], true);
}

async fn branches(recorder: &Recorder, user: &str, id: &str) {
    for title in ["another protocol", ""] {
        let branch = json!({
            "conversationId": id, "userId": user, "atSeq": "2", "title": title,
            "branchId": new_id(),
        });
        let branched = recorder.ok("BranchConversation", branch).await;
        assert_eq!(branched["conversation"]["branchedAtSeq"], "2");
    }
    let list = json!({ "conversationId": id, "userId": user, "pageSize": 1 });
    pages(recorder, "ListBranches", list).await;
    let list = json!({ "userId": user, "deptId": "hr", "pageSize": 1 });
    pages(recorder, "ListConversations", list).await;
}

/// Reads the first two pages of a list.
async fn pages(recorder: &Recorder, operation: &str, mut list: Value) {
    let page = recorder.ok(operation, list.clone()).await;
    list["pageToken"] = page["nextPageToken"].clone();
    recorder.ok(operation, list).await;
}

async fn files(recorder: &Recorder, user: &str, id: &str) {
    for format in ["UNSPECIFIED", "JSON", "JSONL", "CSV", "MARKDOWN"] {
        let format = format!("EXPORT_FORMAT_{format}");
        let export = json!({ "conversationId": id, "userId": user, "format": format });
        let mut file = recorder.ok("ExportConversation", export).await;
        if format == "EXPORT_FORMAT_JSON" {
            let import = json!({
                "userId": user, "deptId": "hr", "format": format, "file": file,
            });
            recorder.ok("ImportConversation", import).await;
            file["conversation"]["id"] = new_id().into();
            let restore = json!({
                "userId": user, "keepIds": true, "newMessageIds": true, "file": file,
            });
            recorder.ok("ImportConversation", restore).await;
        }
    }
}

async fn searches(recorder: &Recorder, user: &str, id: &str) {
    let search = json!({
        "userId": user,
        "query": "vacation",
        "conversationId": id,
        "deptId": "hr",
        "pageSize": 1,
    });
    pages(recorder, "SearchMessages", search.clone()).await;
    let mut misspelled = search.clone();
    misspelled["query"] = "vacatoin".into();
    recorder.ok("SearchMessages", misspelled).await;
    let mut narrow = search;
    narrow["role"] = "ROLE_TOOL".into();
    narrow["createdFrom"] = "2024-01-01T00:00:00Z".into();
    narrow["createdUntil"] = "2924-01-01T00:00:00Z".into();
    narrow["metadataKey"] = "lang".into();
    narrow["metadataValue"] = "".into();
    recorder.ok("SearchMessages", narrow).await;
}

async fn sessions_and_turns(recorder: &Recorder, user: &str, id: &str) {
    let create = json!({ "userId": user, "deptId": "hr", "conversationId": id });
    let created = recorder.ok("CreateSession", create).await;
    let session = json!({ "sessionId": created["session"]["id"], "userId": user });
    recorder.ok("GetSession", session.clone()).await;
    recorder.ok("ExtendSession", session.clone()).await;
    recorder
        .ok("CreateSession", json!({ "userId": user }))
        .await;
    let list = json!({ "userId": user, "pageSize": 1 });
    pages(recorder, "ListSessions", list).await;
    let begin = json!({
        "userId": user,
        "deptId": "hr",
        "sessionId": session["sessionId"],
        "conversationId": id,
        "limit": 2,
        "maxTokens": 100,
        "startOnUser": false,
    });
    for state in ["CONTINUED", "RESUMED"] {
        let begun = recorder.ok("BeginTurn", begin.clone()).await;
        assert_eq!(begun["sessionState"], format!("SESSION_STATE_{state}"));
        recorder.ok("EndSession", session.clone()).await;
    }
}

/// Makes calls whose requests and responses have as few fields as possible.
async fn items(recorder: &Recorder, user: &str) {
    let address = json!({ "userId": user, "namespace": ["facts", "é"], "key": "k" });
    let with = |changes: Value| with_changes(address.clone(), &changes);
    let put = with(json!({
        "value": "{\"n\":9007199254740993}",
        "ttlMinutes": 60,
        "vectors": [{ "values": [0.5, -1] }],
    }));
    recorder.ok("PutItem", put.clone()).await;
    let get = with(json!({ "refreshTtl": true }));
    let read = recorder.ok("GetItem", get.clone()).await;
    assert_eq!(read["item"]["value"], put["value"]);
    let search = json!({
        "userId": user,
        "namespacePrefix": ["facts"],
        "filter": "{\"n\":{\"$gt\":1}}",
        "limit": 1,
        "offset": 0,
        "queryVector": { "values": [1, 0] },
        "refreshTtl": true,
    });
    let list = json!({
        "userId": user,
        "conditions": [{ "matchType": "NAMESPACE_MATCH_TYPE_SUFFIX", "labels": ["*"] }],
        "maxDepth": 1,
        "limit": 1,
        "offset": 0,
    });
    let second = with(json!({ "key": "l", "namespace": ["more"], "value": "{\"n\":2}" }));
    recorder.ok("PutItem", second).await;
    let found = recorder.ok("SearchItems", search.clone()).await;
    assert_eq!(found["items"][0]["item"]["key"], "k");
    let listed = recorder.ok("ListNamespaces", list.clone()).await;
    assert_eq!(listed["nextOffset"], 1);
    let all = json!({ "userId": user, "limit": 1 });
    let found = recorder.ok("SearchItems", all.clone()).await;
    assert_eq!(found["nextOffset"], 1);
    let batch = json!({ "userId": user, "operations": [
        { "get": get },
        { "search": search },
        { "listNamespaces": list },
        { "put": put },
        { "delete": address },
    ] });
    let results = recorder.ok("BatchItems", batch).await;
    assert_eq!(results["results"].as_array().unwrap().len(), 5);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    let mut gets = Vec::new();
    for key in ["1", "2", "3", "4"] {
        let put = with(json!({ "key": key, "value": large }));
        recorder.ok("PutItem", put).await;
        gets.push(json!({ "get": with(json!({ "key": key })) }));
    }
    let incomplete = json!({ "userId": user, "operations": gets });
    let results = recorder.ok("BatchItems", incomplete).await;
    assert_eq!(results["incomplete"], true);
    assert_eq!(results["results"][3]["get"]["omitted"], true);
    recorder.ok("DeleteItem", address).await;
    recorder
        .ok("GetItem", json!({ "namespace": ["x"], "key": "k" }))
        .await;
}

async fn sparse(recorder: &Recorder) {
    let user = new_user();
    for operation in ["ListConversations", "ListSessions"] {
        let list = recorder.ok(operation, json!({ "userId": user })).await;
        assert_eq!(list, json!({}));
    }
    let created = recorder.ok("CreateConversation", json!({ "userId": user }));
    let created = created.await;
    let id = &created["conversation"]["id"];
    for operation in [
        "GetConversation",
        "GetHistory",
        "ListMessages",
        "ListBranches",
        "ExportConversation",
        "TruncateConversation",
    ] {
        recorder
            .ok(operation, json!({ "conversationId": id }))
            .await;
    }
    let search = json!({ "userId": user, "query": "the" });
    assert_eq!(recorder.ok("SearchMessages", search).await, json!({}));
    let message = json!({ "role": "ROLE_TOOL", "metadata": { "a": null } });
    let save = json!({ "conversationId": id, "messages": [message] });
    recorder.ok("SaveMessages", save).await;
    recorder.ok("BeginTurn", json!({ "userId": user })).await;
    let created = recorder.ok("CreateSession", json!({ "userId": user }));
    let session = json!({ "sessionId": created.await["session"]["id"] });
    for operation in ["GetSession", "ExtendSession", "EndSession"] {
        recorder.ok(operation, session.clone()).await;
    }
}

async fn rejections(recorder: &Recorder, id: &str) {
    let save = |request_id: &str, expected: &str, content: &str| {
        json!({
            "conversationId": id,
            "requestId": request_id,
            "expectedLastSeq": expected,
            "messages": [{ "role": "ROLE_USER", "content": content }],
        })
    };
    let none = json!({ "conversationId": new_id() });
    let bad = json!({ "conversationId": "x" });
    for operation in ["GetHistory", "ExportConversation", "DeleteConversation"] {
        recorder.rejected(400, operation, bad.clone()).await;
        recorder.rejected(404, operation, none.clone()).await;
    }
    let late = json!({ "conversationId": id, "minSeq": "99" });
    recorder.rejected(400, "GetHistory", late).await;
    let gone = json!({ "sessionId": new_id() });
    recorder.rejected(404, "GetSession", gone).await;
    recorder
        .rejected(409, "SaveMessages", save("a", "99", "x"))
        .await;
    recorder
        .rejected(409, "SaveMessages", save("turn-1", "4", "x"))
        .await;
    let large = save("b", "4", &"x".repeat(13 << 20));
    recorder.rejected(413, "SaveMessages", large).await;
    let asked = recorder.caller.asked("SaveMessages", &save("c", "4", "x"));
    let text = [("content-type", "text/plain")];
    let http = &recorder.caller.http;
    let unsupported = http
        .send(asked.method.clone(), &asked.path, &text, "{}")
        .await;
    assert_eq!(unsupported.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    recorder.record("SaveMessages", &asked, &unsupported);
    let asked = recorder.caller.asked("GetHistory", &none);
    let hurried = [("grpc-timeout", "1n")];
    let late = http
        .send(asked.method.clone(), &asked.path, &hurried, "")
        .await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    recorder.record("GetHistory", &asked, &late);
}

async fn deletions(recorder: &Recorder, user: &str, id: &str) {
    let truncate = json!({
        "conversationId": id,
        "userId": user,
        "afterSeq": "3",
        "expectedLastSeq": "4",
        "requestId": "cut",
    });
    let cut = recorder.ok("TruncateConversation", truncate).await;
    assert_eq!(cut, json!({ "removedMessages": "1", "lastSeq": "4" }));
    let delete = json!({ "conversationId": id, "userId": user });
    recorder.ok("DeleteConversation", delete).await;
}

/// Records the responses of a sidecar with too many calls and, if Redis is configured, of one
/// that cannot reach it.
async fn rejections_of_an_overloaded_sidecar(form: &Form, recorder: &Recorder) {
    // A call releases its permit shortly after its response has been read.
    let settings = [("MAX_CONCURRENT_CALLS", "4")];
    let away = form.without_redis();
    let sidecar = Sidecar::start_with(away.as_ref().unwrap_or(form), &settings).await;
    let needy = Recorder::new(&sidecar).await;
    if away.is_some() {
        let user = new_user();
        let begun = needy.ok("BeginTurn", json!({ "userId": user })).await;
        assert_eq!(begun["sessionState"], "SESSION_STATE_UNAVAILABLE");
        let create = json!({ "userId": user });
        needy.rejected(503, "CreateSession", create).await;
    }
    let list = json!({ "userId": new_user() });
    eventually(
        "a call is rejected because there are too many",
        async || {
            let calls = (0..64).map(|_| needy.call("ListConversations", &list));
            let responses = futures_util::future::join_all(calls).await;
            responses.iter().any(|response| response.status == 429)
        },
    )
    .await;
    recorder.add(&needy);
}

/// Proves that the test above can fail.
async fn a_wrong_document_is_detected(form: Form) {
    let sidecar = Sidecar::start_with(&form, &SETTINGS).await;
    let recorder = Recorder::new(&sidecar).await;
    let user = new_user();
    let id = conversation(&recorder, &user).await;
    reads(&recorder, &user, &id).await;
    files(&recorder, &user, &id).await;
    rejections(&recorder, &id).await;
    let right = &recorder.caller.document;
    let judged = recorder.validate(right).await;
    assert!(judged.wrong.is_empty(), "{:#?}", judged.wrong);
    let missed = |call: &str| judged.unseen.iter().any(|unseen| unseen == call);
    assert!(missed("SearchMessages") && missed("Hit.rank"));
    assert!(missed("ListBranches(page_token)"));
    let schemas = "/components/schemas";
    for (place, wrong) in [
        ("Message/properties/seq/type", json!("integer")),
        ("Message/properties/tokensUsed/type", json!("string")),
        ("Message/properties/createdAt/format", json!("date")),
        ("Message/properties/metadata/type", json!("string")),
        ("Message/properties", json!({ "id": {} })),
        ("RetrievedContext/properties/score/type", json!("integer")),
        ("Role/enum", json!(["ROLE_USER"])),
        ("Conversation/required", json!(["parentId"])),
        ("SaveMessagesResponse/properties", json!({})),
        (
            "Error/properties/error/properties/code/type",
            json!("string"),
        ),
    ] {
        let mut document = right.clone();
        let (object, name) = place.rsplit_once('/').unwrap();
        let object = match object {
            "" => schemas.to_owned(),
            object => format!("{schemas}/{object}"),
        };
        document.pointer_mut(&object).unwrap()[name] = wrong;
        let judged = recorder.validate(&document).await;
        assert!(!judged.wrong.is_empty(), "{place}");
    }
    let text = right.to_string().replace("text/csv", "text/plain");
    let document = serde_json::from_str(&text).unwrap();
    assert!(!recorder.validate(&document).await.wrong.is_empty());
}
