//! Every route with the requests of a typical caller.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use test_support::{
    http::{Http, contents},
    new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    conversations_of_a_user_are_listed_and_read,
    a_turn_is_begun_and_saved,
    conversations_are_changed,
    messages_are_paged_and_truncated,
    sessions_are_served,
    values_have_the_json_form_of_proto3,
    enum_values_are_accepted_in_lower_case_without_prefix,
    both_versions_of_http_and_grpc_share_a_port,
    a_conversation_is_downloaded_branched_and_searched,
);

async fn conversations_of_a_user_are_listed_and_read(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let (first, second) = (
        http.conversation(&user).await,
        http.conversation(&user).await,
    );
    http.save_text(&second, "about holidays").await;
    http.save_text(&first, "about salaries").await;
    http.save_text(&first, "and pensions").await;
    for prefix in ["", "/v1"] {
        let list = format!("{prefix}/conversations?user_id={user}");
        let list = http.get(&list).await.ok();
        let titles = list["conversations"].as_array().unwrap().iter();
        let titles: Vec<_> = titles
            .map(|found| found["title"].as_str().unwrap())
            .collect();
        assert_eq!(titles, ["about salaries", "about holidays"]);
        let whole = http
            .get(&format!("{prefix}/conversations/{first}"))
            .await
            .ok();
        assert_eq!(contents(&whole), ["about salaries", "and pensions"]);
        assert_eq!(whole["conversation"]["lastSeq"], "2");
    }
    let upper = format!("/conversations/{}", first.to_uppercase());
    let upper = http.get(&upper).await.ok();
    assert_eq!(upper["conversation"]["id"], *first);
    for (prefix, id) in [("", &first), ("/v1", &second)] {
        let path = format!("{prefix}/conversations/{id}");
        assert_eq!(http.delete(&path).await.ok(), json!({}));
        assert_eq!(http.get(&path).await.status, StatusCode::NOT_FOUND);
    }
}

async fn a_turn_is_begun_and_saved(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let begin = json!({ "userId": user });
    let begun = http.post("/v1/turns:begin", &begin).await.ok();
    assert_eq!(begun["sessionState"], "SESSION_STATE_STARTED");
    let conversation = begun["conversation"]["id"].as_str().unwrap();
    let path = format!("/v1/conversations/{conversation}/messages");
    let save = json!({
        "sessionId": begun["session"]["id"],
        "requestId": "turn-1",
        "expectedLastSeq": "0",
        "messages": [
            { "role": "ROLE_USER", "content": "how?" },
            { "role": "ROLE_ASSISTANT", "content": "so", "contexts": [{ "docId": "d", "score": 0.5 }] },
        ],
    });
    let saved = http.post(&path, &save).await.ok();
    assert_eq!(
        (&saved["lastSeq"], &saved["replayed"]),
        (&json!("2"), &Value::Null)
    );
    let again = http.post(&path, &save).await.ok();
    assert_eq!(
        (&again["lastSeq"], &again["replayed"]),
        (&json!("2"), &json!(true))
    );
    let path = format!(
        "/v1/conversations/{conversation}/history?limit=1&consistency=CONSISTENCY_STRONG\
         &include_contexts=true&minSeq=2"
    );
    let read = http.get(&path).await.ok();
    assert_eq!(contents(&read), ["so"]);
    assert_eq!(read["source"], "SOURCE_STORE");
    assert_eq!(read["messages"][0]["contexts"][0]["score"], 0.5);
}

async fn conversations_are_changed(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let create = json!({ "userId": user, "title": "old", "metadata": { "a": 1 } });
    let created = http.post("/v1/conversations", &create).await.ok();
    let id = created["conversation"]["id"].as_str().unwrap();
    let path = format!("/v1/conversations/{id}");
    let change = async |query: &str, body: &str| {
        let path = format!("{path}{query}");
        http.json(Method::PATCH, &path, body).await
    };
    let changed = change("?update_mask=title", r#"{"title":"new","metadata":{}}"#);
    let changed = changed.await.ok();
    assert_eq!(changed["conversation"]["title"], "new");
    assert_eq!(changed["conversation"]["metadata"], json!({ "a": 1 }));
    let changed = change("?updateMask=metadata,title", r#"{"title":"newer"}"#);
    let changed = changed.await.ok();
    assert_eq!(changed["conversation"]["title"], "newer");
    assert_eq!(changed["conversation"]["metadata"], Value::Null);
    // The id in the path takes precedence over the one in the body.
    let body = json!({ "id": test_support::new_id(), "title": "newest" }).to_string();
    let changed = change("", &body).await.ok();
    assert_eq!(changed["conversation"]["id"], *id);
    let rejected = change("?update_mask=user_id", r#"{"userId":"x"}"#).await;
    assert_eq!(rejected.rejected_field(), "update_mask");
    // A parameter that would set a part of another one is rejected instead of ignored.
    for query in [
        "?update_mask.paths=title",
        "?update_mask=title&update_mask.paths=metadata",
        "?update_mask.paths=metadata&update_mask=title",
    ] {
        let rejected = change(query, r#"{"title":"x","metadata":{}}"#).await;
        assert_eq!(rejected.rejected_field(), "update_mask.paths");
    }
    let foreign = change("?user_id=somebody", r#"{"title":"x"}"#).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
}

async fn messages_are_paged_and_truncated(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let id = http.conversation(&user).await;
    for text in ["1", "2", "3", "4", "5"] {
        http.save_text(&id, text).await;
    }
    let path = format!("/v1/conversations/{id}/messages?page_size=2&newest_first=true");
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let page = http.get(&format!("{path}&page_token={token}")).await.ok();
        pages.push(contents(&page).join(""));
        let Some(next) = page["nextPageToken"].as_str() else {
            break;
        };
        next.clone_into(&mut token);
    }
    assert_eq!(pages, ["54", "32", "1"]);
    let path = format!("/v1/conversations/{id}:truncate");
    let cut = http.post(&path, &json!({ "afterSeq": "3" })).await.ok();
    assert_eq!(cut, json!({ "removedMessages": "2", "lastSeq": "5" }));
    let whole = http.get(&format!("/conversations/{id}")).await.ok();
    assert_eq!(contents(&whole), ["1", "2", "3"]);
}

async fn sessions_are_served(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    // Characters that a user id may contain and a URL may not.
    let user = format!("é /?&=+%#:{}", new_user());
    let session = http
        .post("/v1/sessions", &json!({ "userId": user }))
        .await
        .ok();
    let id = session["session"]["id"].as_str().unwrap();
    let path = format!("/v1/sessions/{id}");
    assert_eq!(http.get(&path).await.ok()["session"]["userId"], *user);
    let extend = format!("{path}:extend");
    let extended = http.post(&extend, &json!({})).await.ok();
    assert_eq!(extended["session"]["id"], *id);
    // A request without a body needs no content type.
    let bare = http.send(Method::POST, &extend, &[], "").await;
    assert_eq!(bare.ok()["session"]["id"], *id);
    let encoded = percent_encoding::utf8_percent_encode(&user, percent_encoding::NON_ALPHANUMERIC);
    let list = http
        .get(&format!("/v1/sessions?user_id={encoded}"))
        .await
        .ok();
    assert_eq!(list["sessions"][0]["id"], *id);
    http.delete(&path).await.ok();
    let gone = http.get(&path).await;
    assert_eq!(
        gone.error()["details"][0]["reason"],
        "SESSION_EXPIRED_OR_UNKNOWN"
    );
}

async fn values_have_the_json_form_of_proto3(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let path = format!("/v1/conversations/{id}/messages");
    let metadata =
        json!({ "list": [1, 2.5, "x", null, { "deep": [true] }], "none": null, "no": {} });
    let save = json!({ "expected_last_seq": 0, "messages": [{
        "role": 1,
        "content": "x",
        "tokens_used": "7",
        "latencyMs": 8.0,
        "createdAt": "2024-02-29T12:00:00.25+02:00",
        "metadata": metadata,
        "id": null,
    }] });
    let saved = http.post(&path, &save).await.ok();
    let message = &saved["messages"][0];
    assert_eq!(message["role"], "ROLE_USER");
    assert_eq!(message["seq"], "1");
    assert_eq!(message["tokensUsed"], 7);
    assert_eq!(message["latencyMs"], 8);
    assert_eq!(message["createdAt"], "2024-02-29T10:00:00.250Z");
    assert_eq!(message["metadata"], metadata);
}

async fn enum_values_are_accepted_in_lower_case_without_prefix(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let id = http.conversation(&user).await;
    let path = format!("/v1/conversations/{id}");
    let save = json!({ "messages": [
        { "role": "user", "content": "word" },
        { "role": "assistant", "content": "word" },
    ] });
    let saved = http.post(&format!("{path}/messages"), &save).await.ok();
    assert_eq!(saved["messages"][0]["role"], "ROLE_USER");
    let found = format!("/v1/messages:search?user_id={user}&query=word&role=assistant");
    let found = http.get(&found).await.ok();
    assert_eq!(found["hits"].as_array().unwrap().len(), 1);
    for (filter, count) in [
        (
            "created_from=2024-01-01T00:00:00Z&created_until=2924-01-01T00:00:00Z",
            2,
        ),
        ("created_until=2024-01-01T00:00:00Z", 0),
        ("metadata_key=lang&metadata_value=de", 0),
    ] {
        let found = format!("/v1/messages:search?user_id={user}&query=word&{filter}");
        let found = http.get(&found).await.ok();
        let hits = found["hits"].as_array().map_or(0, Vec::len);
        assert_eq!(hits, count, "{filter}");
    }
    let file = http.get(&format!("{path}:export?format=csv")).await;
    assert_eq!(file.headers["content-type"], "text/csv; charset=utf-8");
    for (bad, names) in [
        (format!("{path}:export?format=pdf"), "EXPORT_FORMAT_JSON, "),
        (
            format!("{path}/history?consistency=Strong"),
            "cached, strong",
        ),
    ] {
        let rejected = http.get(&bad).await;
        let message = rejected.error()["message"].to_string();
        assert!(message.contains(names), "{message}");
    }
    let bad = json!({ "messages": [{ "role": "bot", "content": "x" }] });
    let rejected = http.post(&format!("{path}/messages"), &bad).await;
    assert_eq!(rejected.rejected_field(), "messages[0].role");
    assert_eq!(
        rejected.error()["message"],
        "messages[0].role must be one of ROLE_USER, ROLE_ASSISTANT, ROLE_SYSTEM, ROLE_TOOL \
         (or user, assistant, system, tool)"
    );
}

async fn both_versions_of_http_and_grpc_share_a_port(form: Form) {
    use conversation_memory::proto::GetHistoryRequest;

    let sidecar = Sidecar::start(&form).await;
    let (one, two) = (Http::new(&sidecar), Http::over_http_2(&sidecar));
    let id = one.conversation(&new_user()).await;
    two.save_text(&id, "over two").await;
    let request = GetHistoryRequest {
        conversation_id: id.clone(),
        ..GetHistoryRequest::default()
    };
    let read = sidecar.memory().get_history(request).await.unwrap();
    assert_eq!(read.into_inner().messages[0].content, "over two");
    let path = format!("/v1/conversations/{id}/history");
    assert_eq!(contents(&one.get(&path).await.ok()), ["over two"]);
    let head = one.send(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

async fn a_file_is_sent(http: &Http, file: &str) {
    let user = new_user();
    let file = http.get(file).await.body;
    let send = async |kind, query: String, body| {
        let path = format!("/v1/conversations:import?{query}");
        let kind = [("content-type", kind)];
        http.send(Method::POST, &path, &kind, body).await
    };
    let named = format!("user_id={user}");
    // The format is detected from the file.
    for kind in ["application/jsonl", "application/json; charset=utf-8"] {
        let imported = send(kind, named.clone(), file.clone()).await.ok();
        assert_eq!(imported["importedMessages"], "2");
        assert_eq!(imported["conversation"]["userId"], *user);
        let id = imported["conversation"]["id"].as_str().unwrap();
        let read = http.get(&format!("/conversations/{id}")).await.ok();
        assert_eq!(contents(&read), ["vacation days", "sick days"]);
    }
    let kept = send(
        "application/jsonl",
        format!("{named}&keep_ids=true"),
        file.clone(),
    )
    .await;
    assert_eq!(kept.status, StatusCode::CONFLICT);
    let typeless = http.send(Method::POST, "/v1/conversations:import", &[], file.clone());
    assert_eq!(typeless.await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let unknown = send("application/jsonl", "data=x".to_owned(), file.clone()).await;
    assert_eq!(unknown.rejected_field(), "data");
    let long = send(
        "application/jsonl",
        format!("user_id={}", "x".repeat(256)),
        file,
    )
    .await;
    assert_eq!(long.rejected_field(), "options.user_id");
    // A client that sends the whole file before it reads receives the error.
    let mut bad = b"bad\n".to_vec();
    bad.resize(64 << 20, b' ');
    let bad = send("application/jsonl", named.clone(), bad.into()).await;
    assert_eq!(bad.rejected_field(), "line 1");
    let listed = http.get(&format!("/conversations?{named}")).await.ok();
    assert_eq!(listed["conversations"].as_array().map(Vec::len), Some(2));
}

async fn a_conversation_is_downloaded_branched_and_searched(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let user = new_user();
    let id = http.conversation(&user).await;
    http.save_text(&id, "vacation days").await;
    http.save_text(&id, "sick days").await;
    let path = format!("/v1/conversations/{id}");
    for (format, ending, kind) in [
        ("JSON", "json", "application/json"),
        ("JSONL", "jsonl", "application/jsonl"),
        ("CSV", "csv", "text/csv; charset=utf-8"),
        ("MARKDOWN", "md", "text/markdown; charset=utf-8"),
    ] {
        let file = format!("{path}:export?format=EXPORT_FORMAT_{format}");
        let file = http.get(&file).await;
        assert_eq!(file.status, StatusCode::OK, "{file:?}");
        assert_eq!(file.headers["content-type"], kind);
        let name = format!("attachment; filename=\"{id}.{ending}\"");
        assert_eq!(file.headers["content-disposition"], name);
        let text = String::from_utf8(file.body.to_vec()).unwrap();
        assert!(text.contains("vacation days"), "{text}");
    }
    a_file_is_sent(&http, &format!("{path}:export?format=EXPORT_FORMAT_JSONL")).await;
    let foreign = http.get(&format!("{path}:export?user_id=x")).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let branch = json!({ "atSeq": 1, "title": "another protocol" });
    let branch = http.post(&format!("{path}:branch"), &branch).await.ok();
    let branch = branch["conversation"]["id"].as_str().unwrap();
    let shared = http.get(&format!("/conversations/{branch}")).await.ok();
    assert_eq!(contents(&shared), ["vacation days"]);
    let list = http.get(&format!("{path}/branches")).await.ok();
    assert_eq!(list["conversations"][0]["id"], *branch);
    let found = format!("/v1/messages:search?user_id={user}&query=sick+days");
    let found = http.get(&found).await.ok();
    assert!(found.to_string().contains("sick"), "{found}");
}
