//! A REST call is traced as the RPC of its route.

use http::Method;
use serde_json::json;

use crate::observed::{ObservedSidecar, traced};
use test_support::{http::Http, new_user, sidecar::Form};

test_support::in_both_forms!(a_rest_call_is_traced_as_its_rpc);

async fn a_rest_call_is_traced_as_its_rpc(form: Form) {
    let observed = ObservedSidecar::start(form).await;
    let http = Http::new(&observed.sidecar);
    let (trace, request) = traced(());
    let parent = request.metadata().get("traceparent").unwrap();
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", parent.to_str().unwrap()),
    ];
    let begin = json!({ "userId": new_user() }).to_string();
    let begun = http.send(Method::POST, "/v1/turns:begin", &headers, begin);
    begun.await.ok();
    let exported = observed.stop().await;
    let call = exported.call(&trace);
    call.assert_is_a_tree();
    let name = "conversation_memory.v1.ConversationMemory/BeginTurn";
    assert_eq!(call.server.name, name);
    assert_eq!(call.server.text("rpc.method"), name);
    assert_eq!(call.server.text("rpc.response.status_code"), "OK");
}
