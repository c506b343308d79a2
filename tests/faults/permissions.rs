//! Users of Redis with few permissions: the documented ones are sufficient, and each that is missing is
//! named by one line.

use conversation_memory::proto::{
    DeleteConversationRequest, EndSessionRequest, ListSessionsRequest, Role, SessionState,
    TruncateConversationRequest,
};
use test_support::{
    new_user,
    redis_cluster::RedisCluster,
    redis_server::RedisServer,
    requests::{begin, message, save},
    required_variable,
    sidecar::{Form, Memory, Sidecar},
};

use crate::{begun_with_session, mistakes::expect_lines, read_from_cache};

const PASSWORD: &str = "secret";

/// Sidecars that are started at the same time.
const AT_ONCE: usize = 6;

/// Returns the permissions of the user in the documentation.
fn documented() -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, command) = text.split_once("redis-cli ACL SETUSER memory ").unwrap();
    let (command, _) = command.split_once("```").unwrap();
    let words = command
        .split_whitespace()
        .map(|word| word.trim_matches('\''));
    let permissions = words.filter(|word| word.starts_with(['+', '~']));
    permissions.map(str::to_owned).collect()
}

async fn create_user(redis: &RedisServer, name: &str, permissions: impl Iterator<Item = &String>) {
    let password = format!(">{PASSWORD}");
    let permissions: Vec<&str> = permissions.map(String::as_str).collect();
    let user = ["ACL", "SETUSER", name, "reset", "on", &password];
    let command = [&user[..], &permissions].concat();
    assert_eq!(redis.call(&command).await, "OK");
}

fn url(redis: &RedisServer, user: &str) -> String {
    format!("redis://{user}:{PASSWORD}@127.0.0.1:{}/0", redis.port())
}

async fn use_everything(sidecar: &Sidecar) {
    let (mut memory, mut sessions) = (sidecar.memory(), sidecar.sessions());
    let user = new_user();
    let mut turn = begin(&user);
    let begun = begun_with_session(&mut memory, &turn).await;
    let session = begun.session.unwrap().id;
    let conversation = begun.conversation.unwrap().id;
    save_some(&mut memory, &conversation, "one").await;
    read_from_cache(&mut memory, &conversation, &["one"]).await;
    save_some(&mut memory, &conversation, "two").await;
    read_from_cache(&mut memory, &conversation, &["one", "two"]).await;
    turn.session_id.clone_from(&session);
    let continued = begun_with_session(&mut memory, &turn).await;
    assert_eq!(continued.session_state(), SessionState::Continued);
    let list = ListSessionsRequest {
        user_id: user.clone(),
        ..ListSessionsRequest::default()
    };
    let listed = sessions.list_sessions(list).await.unwrap().into_inner();
    assert_eq!(listed.sessions.len(), 1);
    let end = EndSessionRequest {
        session_id: session,
        user_id: user.clone(),
    };
    sessions.end_session(end).await.unwrap();
    let truncate = TruncateConversationRequest {
        conversation_id: conversation.clone(),
        after_seq: 1,
        ..TruncateConversationRequest::default()
    };
    memory.truncate_conversation(truncate).await.unwrap();
    read_from_cache(&mut memory, &conversation, &["one"]).await;
    let delete = DeleteConversationRequest {
        conversation_id: conversation,
        ..DeleteConversationRequest::default()
    };
    memory.delete_conversation(delete).await.unwrap();
}

async fn save_some(memory: &mut Memory, conversation: &str, text: &str) {
    let request = save(conversation, vec![message(Role::User, text)]);
    memory.save_messages(request).await.unwrap();
}

fn assert_nothing_is_denied(sidecar: &Sidecar) {
    let log = sidecar.log();
    let complaints = ["lacks", "refuses", "not authorized", "+info"];
    for line in &log {
        assert!(!complaints.iter().any(|it| line.contains(it)), "{line}");
    }
}

#[tokio::test]
async fn documented_permissions_are_sufficient() {
    let redis = RedisServer::start(&[]).await;
    create_user(&redis, "memory", documented().iter()).await;
    let form = Form::Servers {
        database_url: required_variable("TEST_DATABASE_URL"),
        redis_url: url(&redis, "memory"),
    };
    let sidecar = Sidecar::start(&form).await;
    use_everything(&sidecar).await;
    assert_nothing_is_denied(&sidecar);
    // The client library asks for the number of its connection, and does without it. Redis 6.2 logs the
    // command without its subcommand.
    let log = redis.call(&["ACL", "LOG"]).await;
    let lines: Vec<&str> = log.lines().collect();
    for pair in lines.windows(3).filter(|pair| pair[0] == "object") {
        assert!(["client|id", "client"].contains(&pair[2]), "{log}");
    }
}

#[tokio::test]
async fn documented_permissions_are_sufficient_for_a_cluster() {
    let redis = RedisCluster::start(1).await;
    let cluster = ["+cluster|info", "+cluster|slots"].map(str::to_owned);
    let permissions = [&documented()[..], &cluster].concat();
    for node in &redis.nodes {
        create_user(node, "memory", permissions.iter()).await;
    }
    let form = Form::Servers {
        database_url: required_variable("TEST_DATABASE_URL"),
        redis_url: url(&redis.nodes[0], "memory"),
    };
    let mut sidecar = Sidecar::start(&form).await;
    sidecar.wait_for_log("using the whole cluster").await;
    use_everything(&sidecar).await;
    assert_nothing_is_denied(&sidecar);

    let mut missing = Vec::new();
    for (number, command) in cluster.iter().enumerate() {
        let name = format!("memory{number}");
        for node in &redis.nodes {
            let others = permissions.iter().filter(|it| *it != command);
            create_user(node, &name, others).await;
        }
        missing.push((url(&redis.nodes[0], &name), command));
    }
    expect_permissions(&missing).await;
}

#[tokio::test]
async fn each_missing_permission_is_named() {
    let redis = RedisServer::start(&[]).await;
    let permissions = documented();
    assert!(permissions.len() > 25, "{permissions:?}");
    let mut missing = Vec::new();
    for (number, permission) in permissions.iter().enumerate() {
        let name = format!("memory{number}");
        let others = permissions.iter().filter(|it| *it != permission);
        create_user(&redis, &name, others).await;
        missing.push((url(&redis, &name), permission));
    }
    for missing in missing.chunks(AT_ONCE) {
        expect_permissions(missing).await;
    }
}

/// Starts sidecars with these URLs of Redis, and waits until each names the permission.
async fn expect_permissions(missing: &[(String, &String)]) {
    let cases: Vec<_> = missing
        .iter()
        .map(|(url, permission)| {
            // Redis 6.2 does not name subcommands.
            let name = permission.split('|').next().unwrap();
            (url, [name, "permission"])
        })
        .collect();
    let cases = cases.iter();
    let cases = cases.map(|(url, expected)| {
        let settings = vec![("REDIS_URL", url.as_str())];
        (Form::embedded(), settings, &expected[..])
    });
    expect_lines(cases.collect()).await;
}
