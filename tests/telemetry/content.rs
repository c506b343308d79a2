//! Message content and credentials are not exported, unless content capture is enabled.

use conversation_memory::proto::{CreateConversationRequest, RetrievedContext};
use prost_types::value::Kind;

use crate::observed::{ExportedTelemetry, ObservedSidecar, ascii, traced};
use test_support::{
    new_user,
    redis_server::RedisServer,
    requests::{begin, history, new_conversation, object, save, turn},
    required_variable,
    sidecar::{Form, Sidecar},
};

const TOKEN: &str = "Bearer user-token-4711";
const TEXT: &str = "what-ana-said";
const PASSWORDS: [&str; 2] = ["postgres-password", "redis-password"];

#[tokio::test]
async fn nothing_private_is_exported() {
    let redis = RedisServer::start(&["--requirepass", PASSWORDS[1]]).await;
    let postgres = required_variable("TEST_DATABASE_URL").replacen(
        "postgres@",
        &format!("postgres:{}@", PASSWORDS[0]),
        1,
    );
    assert!(postgres.contains(PASSWORDS[0]));
    let form = Form::Servers {
        database_url: postgres,
        redis_url: redis
            .url()
            .replacen("redis://", &format!("redis://:{}@", PASSWORDS[1]), 1),
    };
    let settings = [("OTEL_METRICS_EXPORTER", "otlp"), ("LOG_LEVEL", "debug")];
    let observed = ObservedSidecar::start_with(form, &settings).await;
    let user = make_calls_with_private_values(&observed.sidecar).await;
    let ExportedTelemetry { sent, spans, log } = observed.stop().await;
    assert!(
        spans
            .iter()
            .any(|span| span.text("db.system.name") == "redis")
    );
    for private in [TEXT, "user-token-4711", PASSWORDS[0], PASSWORDS[1], &user] {
        for sent in &sent {
            assert!(!sent.contains(private), "{private} in {}", sent.path);
        }
        let contains = |line: &&String| line.contains(private);
        assert_eq!(log.iter().find(contains), None, "{private}");
    }
    for span in spans {
        for key in ["input.value", "output.value"] {
            assert!(!span.attributes.contains_key(key), "{span:#?}");
        }
    }
}

/// Makes calls, successful and failing ones, that contain a private text in every
/// field that accepts one, and a token. Returns the user.
async fn make_calls_with_private_values(sidecar: &Sidecar) -> String {
    let mut memory = sidecar.memory();
    let user = new_user();
    let metadata = object(&[(TEXT, Kind::StringValue(TEXT.to_owned()))]);
    let request = CreateConversationRequest {
        user_id: user.clone(),
        dept_id: TEXT.to_owned(),
        title: TEXT.to_owned(),
        metadata: Some(metadata.clone()),
        ..CreateConversationRequest::default()
    };
    let created = memory
        .create_conversation(with_token(request))
        .await
        .unwrap();
    let conversation = created.into_inner().conversation.unwrap().id;
    let mut request = save(&conversation, turn(TEXT, TEXT));
    request.request_id = TEXT.to_owned();
    request.messages[0].metadata = Some(metadata.clone());
    request.messages[0].contexts = vec![RetrievedContext {
        doc_id: TEXT.to_owned(),
        content: TEXT.to_owned(),
        metadata: Some(metadata),
        ..RetrievedContext::default()
    }];
    memory
        .save_messages(with_token(request.clone()))
        .await
        .unwrap();
    memory
        .get_history(with_token(history(&conversation)))
        .await
        .unwrap();
    let mut begun = begin(&user);
    begun.conversation_id.clone_from(&conversation);
    memory.begin_turn(with_token(begun)).await.unwrap();

    request.messages.truncate(1);
    memory
        .save_messages(with_token(request.clone()))
        .await
        .unwrap_err();
    request.messages[0].content += "\0";
    memory.save_messages(with_token(request)).await.unwrap_err();
    for id in [TEXT, &conversation] {
        let mut read = history(id);
        read.user_id = TEXT.to_owned();
        memory.get_history(with_token(read)).await.unwrap_err();
    }
    user
}

fn with_token<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", ascii(TOKEN));
    request.metadata_mut().insert("x-api-key", ascii(TOKEN));
    request
}

test_support::in_both_forms!(content_is_exported_on_request);

async fn content_is_exported_on_request(form: Form) {
    let settings = [("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")];
    let observed = ObservedSidecar::start_with(form, &settings).await;
    let mut memory = observed.sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let (saved, request) = traced(save(
        &conversation,
        turn("How do I \"ask\"?", "In the portal."),
    ));
    memory.save_messages(request).await.unwrap();
    let (read, request) = traced(history(&conversation));
    memory.get_history(request).await.unwrap();
    let mut turn = begin(&user);
    turn.conversation_id.clone_from(&conversation);
    let (begun, request) = traced(turn);
    memory.begin_turn(request).await.unwrap();

    let exported = observed.stop().await;
    for (trace, key) in [
        (saved, "input.value"),
        (read, "output.value"),
        (begun, "output.value"),
    ] {
        let server = exported.call(&trace).server;
        let value = server.text(key);
        // The value is JSON, which contains the role of each message.
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        let value = value.to_string();
        assert!(value.contains("How do I \\\"ask\\\"?"), "{server:#?}");
        assert!(value.contains("In the portal."), "{server:#?}");
    }
}
