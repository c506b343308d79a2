//! Checks the service against its OpenAPI document.

use std::{path::Path, process::Stdio};

use http::{Method, StatusCode};
use tokio::process::Command;

use test_support::{
    eventually,
    http::Http,
    new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(calls_are_counted_as_rpcs);

/// Time limit of schemathesis, which takes about ten seconds.
const TIME_LIMIT: std::time::Duration = std::time::Duration::from_mins(4);

/// Schemathesis sends requests that the document allows, and requests that it does not.
#[tokio::test]
async fn schemathesis_finds_no_deviation_from_the_document() {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-python/bin/schemathesis");
    assert!(
        program.exists(),
        "the tests' Python is missing: run the tests with `make test`"
    );
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let folder = tempfile::tempdir().unwrap();
    let client = Command::new(program)
        .args(["run", "--no-color", "--max-examples", "30"])
        .arg("--generation-deterministic")
        // Comments document constraints that the schemas do not have, such as that an id is a
        // UUID. And proto3 accepts more than the schemas: null for an unset field, and enum
        // values by number.
        // And a conversation looks missing to a request with the `user_id` of another user.
        .arg(
            "--exclude-checks=positive_data_acceptance,negative_data_rejection,\
             ensure_resource_availability",
        )
        .arg(format!("http://{}/openapi.json", sidecar.address))
        .current_dir(folder.path())
        .env_clear()
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(TIME_LIMIT, client.wait_with_output());
    let output = ended.await.unwrap().unwrap();
    let output_text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&output_text);
    assert!(output.status.success(), "{output_text}");
    let described = Http::new(&sidecar).get("/openapi.json").await.ok();
    let paths = described["paths"].as_object().unwrap().values();
    let operations: usize = paths.map(|path| path.as_object().unwrap().len()).sum();
    assert!(
        output_text.contains(&format!("Tested: {operations}")),
        "{output_text}"
    );
}

async fn calls_are_counted_as_rpcs(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let operations = Http::at(sidecar.operations().await);
    let id = http.conversation(&new_user()).await;
    http.get(&format!("/v1/conversations/{id}/history"))
        .await
        .ok();
    let bad = format!("/v1/conversations/{id}/history?limit=x");
    assert_eq!(http.get(&bad).await.status, StatusCode::BAD_REQUEST);
    let count = async |status: &str| {
        let page = operations.send(Method::GET, "/metrics", &[], "").await;
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        let counted = page.lines().find(|line| {
            line.starts_with("rpc_server_call_duration_seconds_count")
                && line
                    .contains("rpc_method=\"conversation_memory.v1.ConversationMemory/GetHistory\"")
                && line.contains(&format!("rpc_response_status_code=\"{status}\""))
        });
        counted.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    for status in ["OK", "INVALID_ARGUMENT"] {
        eventually("a call is counted", async || {
            count(status).await == Some(1.0)
        })
        .await;
    }
}
