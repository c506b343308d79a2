//! The subcommand that prints the recent window of a conversation.

use std::process::Output;

use conversation_memory::proto::{Role, Source};
use serde_json::{Value, json};

use test_support::{
    eventually, new_id, new_user,
    redis_server::{RedisServer, shared_url},
    requests::{history, message, new_conversation, save},
    sidecar::{Form, Sidecar, command},
};

fn inspect(redis_url: &str, conversation: &str) -> Output {
    let mut inspect = command();
    inspect.args(["inspect-window", conversation]);
    inspect.env("REDIS_URL", redis_url).output().unwrap()
}

#[tokio::test]
async fn a_window_is_printed_and_not_changed() {
    let (redis, form) = (RedisServer::start(&[]).await, Form::servers());
    let Form::Servers { database_url, .. } = form else {
        unreachable!("the form has servers");
    };
    let form = Form::Servers {
        database_url,
        redis_url: redis.url(),
    };
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    let texts = ["first text", "second text"].map(|text| message(Role::User, text));
    let saved = save(&conversation, texts.into());
    memory.save_messages(saved).await.unwrap();
    eventually("the window is filled", async || {
        let read = memory.get_history(history(&conversation)).await.unwrap();
        read.into_inner().source() == Source::Cache
    })
    .await;

    let key = format!("history:{conversation}:recent");
    let before = redis.call(&["HGETALL", &key]).await;
    let output = inspect(&redis.url(), &conversation);
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["key"], key);
    assert!(printed["ttl_ms"].as_i64().unwrap() > 0);
    assert_eq!(printed["fields"]["user"], user);
    assert_eq!(printed["window"]["owner"], user);
    assert_eq!(printed["window"]["last_seq"], 2);
    let contents: Vec<_> = printed["window"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["content"])
        .collect();
    assert_eq!(contents, [&json!("first text"), &json!("second text")]);
    assert_eq!(redis.call(&["HGETALL", &key]).await, before);

    // A window of another version is printed by its fields.
    let other = new_id();
    let key = format!("history:{other}:recent");
    redis
        .call(&["HSET", &key, "hi", "1", "m:1", r#"{"v":1}"#])
        .await;
    let output = inspect(&redis.url(), &other);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["fields"]["m:1"], r#"{"v":1}"#);
    assert_eq!(printed["window"], Value::Null);
}

#[tokio::test]
async fn inspecting_without_a_window_or_without_redis_fails() {
    let url = shared_url();
    for (redis_url, id, expected) in [
        (url.as_str(), new_id(), "there is no window"),
        (url.as_str(), "nonsense".to_owned(), "invalid value"),
        ("", new_id(), "Redis is not configured"),
        ("redis://127.0.0.1:1", new_id(), "cannot connect to Redis"),
    ] {
        let output = inspect(redis_url, &id);
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr);
        let text = format!("{error}{}", String::from_utf8_lossy(&output.stdout));
        assert!(text.contains(expected), "{text}");
    }
}
