//! Logs and messages for operators: the cause for which a server cannot be used.

use conversation_memory::proto::{BeginTurnRequest, SessionState};
use serde_json::Value;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{Servers, begun_with_session};
use test_support::{
    eventually, new_user,
    ports::{free_address, free_port},
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    requests::begin,
    sidecar::{Form, Sidecar, command},
};

/// URL at which no Redis listens.
const NO_REDIS: &str = "redis://127.0.0.1:1";

#[tokio::test]
async fn failed_call_is_logged_with_method_and_cause() {
    let mut postgres = PostgresServer::start().await;
    for statement in [
        "CREATE ROLE app LOGIN",
        "CREATE DATABASE app OWNER app TEMPLATE template0",
    ] {
        postgres.execute(statement).await;
    }
    let url = format!("postgres://app@127.0.0.1:{}/app", postgres.port());
    let mut sidecar = Sidecar::start(&on(&url)).await;
    postgres.execute("ALTER ROLE app CONNECTION LIMIT 0").await;
    postgres
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        .await;
    let turn = begin(&new_user());
    let line = fails_with_cause(&mut sidecar, &turn, "53300").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["message"], "call failed");
    let method = "conversation_memory.v1.ConversationMemory/BeginTurn";
    assert_eq!(line["rpc.method"], method);
    drop(sidecar);

    postgres.execute("ALTER ROLE app CONNECTION LIMIT -1").await;
    let mut sidecar = Sidecar::start(&on(&url)).await;
    postgres.stop();
    fails_with_cause(
        &mut sidecar,
        &turn,
        "accepts no other: the connection was lost",
    )
    .await;
}

/// Repeats a call until the log of a failed call contains a text. A call on a connection that was just
/// closed reports only that, and a busy server may not report the cause in time.
async fn fails_with_cause(sidecar: &mut Sidecar, turn: &BeginTurnRequest, cause: &str) -> String {
    let mut memory = sidecar.memory();
    eventually(cause, async || {
        memory.begin_turn(turn.clone()).await.unwrap_err();
        sidecar.log().iter().any(|line| line.contains(cause))
    })
    .await;
    sidecar.wait_for_log(cause).await
}

#[tokio::test]
async fn failed_migration_reports_its_cause() {
    let postgres = PostgresServer::start().await;
    let nowhere = format!("postgres://postgres@127.0.0.1:{}/nowhere", postgres.port());
    let migrate = command()
        .arg("migrate")
        .env("DATABASE_URL", nowhere)
        .output();
    let output = String::from_utf8(migrate.unwrap().stderr).unwrap();
    assert!(
        output.contains("the store cannot be reached: ") && output.contains("3D000"),
        "{output}"
    );
}

#[tokio::test]
async fn database_of_another_encoding_is_not_served() {
    let postgres = PostgresServer::start().await;
    let create = "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' \
                  TEMPLATE template0";
    postgres.execute(create).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/latin", postgres.port());
    let migrate = command().arg("migrate").env("DATABASE_URL", &url).output();
    let migrate = migrate.unwrap();
    assert!(!migrate.status.success());
    let output = String::from_utf8(migrate.stderr).unwrap();
    assert!(
        output.contains("LATIN1, this program needs UTF8"),
        "{output}"
    );
    let address = free_address();
    let mut sidecar = Sidecar::launch(&on(&url), &[("LISTEN_ADDR", &address.to_string())]);
    let line = sidecar.wait_for_log("not serving").await;
    assert!(line.contains("LATIN1, this program needs UTF8"), "{line}");
    sidecar.address = address;
    let mut health = HealthClient::new(sidecar.channel());
    let health = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn wrong_redis_password_is_logged() {
    // The second server does not know the command AUTH, and quotes its arguments in the error.
    for (option, cause) in [
        (&["--requirepass", "right"][..], "WRONGPASS"),
        (&["--rename-command", "AUTH", ""], "ERR"),
    ] {
        let redis = RedisServer::start(option).await;
        let form = Form::Servers {
            database_url: test_support::required_variable("TEST_DATABASE_URL"),
            redis_url: format!("redis://default:hunter2@127.0.0.1:{}/0", redis.port()),
        };
        let mut sidecar = Sidecar::start(&form).await;
        let line = sidecar.wait_for_log("Redis is unavailable").await;
        assert!(line.contains(cause), "{line}");
        assert!(!sidecar.log().concat().contains("hunter2"));
    }
}

#[tokio::test]
async fn redis_over_tls_needs_a_trusted_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let port = free_port().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let mut options = vec!["--tls-port", &port, "--tls-auth-clients", "no"];
    options.extend(["--tls-cert-file", &cert, "--tls-key-file", &key]);
    let _redis = RedisServer::start(&options).await;
    let form = Form::Servers {
        database_url: test_support::required_variable("TEST_DATABASE_URL"),
        redis_url: format!("rediss://localhost:{port}/0"),
    };
    let mut stranger = Sidecar::start(&form).await;
    let line = stranger.wait_for_log("Redis is unavailable").await;
    assert!(line.contains("UnknownIssuer"), "{line}");
    let friend = Sidecar::start_with(&form, &[("REDIS_CA_FILE", &cert)]).await;
    let begun = begun_with_session(&mut friend.memory(), &begin(&new_user())).await;
    assert_eq!(begun.session_state(), SessionState::Started);
}

#[tokio::test]
async fn each_cause_of_refused_writes_is_logged_once() {
    let servers = Servers::start().await;
    let mut sidecar = Sidecar::start(&servers.form()).await;
    let mut memory = sidecar.memory();
    begun_with_session(&mut memory, &begin(&new_user())).await;
    let refused = |sidecar: &Sidecar| {
        let log = sidecar.log();
        let lines = log
            .iter()
            .filter(|line| line.contains("Redis refuses writes"));
        lines.count()
    };
    let refusals = [
        ("out of memory", ["maxmemory", "1"], ["maxmemory", "0"]),
        (
            "too few replicas",
            ["min-replicas-to-write", "1"],
            ["min-replicas-to-write", "0"],
        ),
    ];
    for (known, (cause, refuse, permit)) in refusals.into_iter().enumerate() {
        servers
            .redis
            .call(&["CONFIG", "SET", refuse[0], refuse[1]])
            .await;
        for _ in 0..50 {
            let begun = memory.begin_turn(begin(&new_user())).await.unwrap();
            let state = begun.into_inner().session_state();
            assert_eq!(state, SessionState::Unavailable);
        }
        sidecar.wait_for_log(cause).await;
        assert_eq!(refused(&sidecar), known + 1);
        servers
            .redis
            .call(&["CONFIG", "SET", permit[0], permit[1]])
            .await;
        begun_with_session(&mut memory, &begin(&new_user())).await;
    }
    // Calls of the API are not logged: they succeed.
    let lines = sidecar.log().len();
    assert!(lines < 20, "{lines} lines");
}

#[tokio::test]
async fn calls_are_logged_at_level_debug() {
    let servers = Servers::start().await;
    let settings = [("LOG_LEVEL", "warn,conversation_memory=debug")];
    let mut sidecar = Sidecar::start_with(&servers.form(), &settings).await;
    let user = "whoever-this-is";
    sidecar.memory().begin_turn(begin(user)).await.unwrap();
    let line: Value = serde_json::from_str(&sidecar.wait_for_log("call ended").await).unwrap();
    assert_eq!(line["code"], "OK");
    assert!(line["duration"].as_f64().unwrap() > 0.0);
    assert!(line["rpc.method"].as_str().unwrap().ends_with("/BeginTurn"));
    assert!(line["conversation_id"].is_string());
    assert!(!sidecar.log().concat().contains(user));
}

fn on(database_url: &str) -> Form {
    Form::Servers {
        database_url: database_url.to_owned(),
        redis_url: NO_REDIS.to_owned(),
    }
}
