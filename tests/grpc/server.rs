//! Operation of the server: health, reflection, deadlines, limits, shutdown, and logs without
//! secrets.

use std::{
    io::Write as _,
    net::TcpStream,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use conversation_memory::{
    proto::{DESCRIPTORS, Role, conversation_memory_client::ConversationMemoryClient},
    rpc::SERVICE_NAMES,
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use test_support::{
    eventually, new_user,
    requests::{begin, contents, history, message, new_conversation, save, save_text},
    sidecar::{Form, Sidecar, command},
};

test_support::in_both_forms!(
    serves_health_and_reflection,
    ends_calls_at_their_deadline,
    rejects_calls_beyond_the_limit,
    malformed_messages_do_not_close_the_connection,
    sigterm_drains_and_exits_in_time,
    does_not_log_content,
);

async fn serves_health_and_reflection(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut health = HealthClient::new(sidecar.channel());
    for service in SERVICE_NAMES.into_iter().chain([""]) {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest {
        service: "nothing".to_owned(),
    };
    let refused = health.check(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(!DESCRIPTORS.is_empty());
    for version in ["v1", "v1alpha"] {
        let method = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let names = reflected(sidecar.channel(), &method).await;
        for name in SERVICE_NAMES {
            assert!(names.contains(name), "{version}: {names}");
        }
    }
    let ended = command()
        .arg("healthcheck")
        .env("LISTEN_ADDR", sidecar.address.to_string())
        .status();
    assert!(ended.unwrap().success());
}

/// Services that reflection lists. The messages of both versions are the same.
async fn reflected(channel: tonic::transport::Channel, method: &str) -> String {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, ServerReflectionResponse,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let codec =
        tonic_prost::ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let stream = tokio_stream::once(request);
    let answer = client
        .streaming(Request::new(stream), method.parse().unwrap(), codec)
        .await
        .unwrap();
    let answer = answer.into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services: {answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|found| found.name).collect();
    names.join(" ")
}

async fn ends_calls_at_their_deadline(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    // The client of tonic would end the call before the server.
    let plain = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<tonic::body::Body>();
    let origin = format!("http://{}", sidecar.address).parse().unwrap();
    let mut plain = ConversationMemoryClient::with_origin(plain, origin);
    let mut request = Request::new(history(&conversation));
    let timeout = "1n".parse().unwrap();
    request.metadata_mut().insert("grpc-timeout", timeout);
    let refused = plain.get_history(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    // The save continues after the deadline, and a retry returns its outcome.
    let mut save = save(&conversation, vec![message(Role::User, "late")]);
    save.request_id = "turn-1".to_owned();
    let mut request = Request::new(save.clone());
    request
        .metadata_mut()
        .insert("grpc-timeout", "3m".parse().unwrap());
    let first = plain.save_messages(request).await;
    let again = memory.save_messages(save).await.unwrap().into_inner();
    assert_eq!(again.last_seq, 1);
    match first {
        Ok(_) => assert!(again.replayed),
        Err(late) => assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}"),
    }
}

async fn rejects_calls_beyond_the_limit(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("MAX_CONCURRENT_CALLS", "1")]).await;
    let memory = sidecar.memory();
    let user = new_user();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (mut memory, user) = (memory.clone(), user.clone());
        calls.spawn(async move { memory.begin_turn(begin(&user)).await.map(drop) });
    }
    let mut health = HealthClient::new(sidecar.channel());
    health.check(HealthCheckRequest::default()).await.unwrap();
    let answers = calls.join_all().await;
    let refused: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(refused.len() < answers.len());
    assert!(!refused.is_empty());
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    eventually("a call is accepted again", async || {
        memory.clone().begin_turn(begin(&user)).await.is_ok()
    })
    .await;
}

async fn malformed_messages_do_not_close_the_connection(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let channel = sidecar.channel();
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    // A timestamp is not a GetHistoryRequest: its first field is a number.
    let codec =
        tonic_prost::ProstCodec::<prost_types::Timestamp, prost_types::Timestamp>::default();
    let garbage = prost_types::Timestamp {
        seconds: 7,
        nanos: 7,
    };
    let method = "/conversation_memory.v1.ConversationMemory/GetHistory";
    let refused = client
        .unary(Request::new(garbage), method.parse().unwrap(), codec)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    client.ready().await.unwrap();
    let codec =
        tonic_prost::ProstCodec::<prost_types::Timestamp, prost_types::Timestamp>::default();
    let unknown = "/conversation_memory.v1.ConversationMemory/Forget";
    let refused = client
        .unary(Request::new(garbage), unknown.parse().unwrap(), codec)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let mut memory = test_support::sidecar::Memory::new(channel);
    memory.begin_turn(begin(&new_user())).await.unwrap();
}

async fn sigterm_drains_and_exits_in_time(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let conversation = new_conversation(&mut memory, &new_user()).await;
    // One connection without any bytes, and one with an open stream.
    let mut idle = TcpStream::connect(sidecar.address).unwrap();
    idle.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    let mut watch = HealthClient::new(sidecar.channel())
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    watch.next().await.unwrap().unwrap();
    let told_to_end = Arc::new(AtomicBool::new(false));
    let mut calls = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (mut memory, conversation) = (memory.clone(), conversation.clone());
        let told_to_end = Arc::clone(&told_to_end);
        calls.spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let text = format!("{writer}-{number}");
                let request = save(&conversation, vec![message(Role::User, &text)]);
                match memory.save_messages(request).await {
                    Ok(saved) => acknowledged.push((saved.into_inner().last_seq, text)),
                    Err(failed) => {
                        assert!(told_to_end.load(Ordering::SeqCst), "{failed:?}");
                        break;
                    }
                }
            }
            acknowledged
        });
    }
    eventually("the load has started", async || {
        let read = memory.get_history(history(&conversation)).await.unwrap();
        read.into_inner().last_seq > 20
    })
    .await;
    told_to_end.store(true, Ordering::SeqCst);
    sidecar.signal("TERM");
    let status = sidecar.ended().await;
    assert_eq!(status.code(), Some(0), "{:?}", sidecar.log());
    let mut acknowledged: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    acknowledged.sort();

    let sidecar = Sidecar::start(&form).await;
    let mut memory = sidecar.memory();
    let mut request = conversation_memory::proto::ListMessagesRequest {
        conversation_id: conversation,
        page_size: 1000,
        ..conversation_memory::proto::ListMessagesRequest::default()
    };
    let mut stored = Vec::new();
    loop {
        let page = memory
            .list_messages(request.clone())
            .await
            .unwrap()
            .into_inner();
        stored.extend(
            page.messages
                .into_iter()
                .map(|found| (found.seq, found.content)),
        );
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    for saved in acknowledged {
        assert!(stored.binary_search(&saved).is_ok(), "lost: {saved:?}");
    }
}

async fn does_not_log_content(form: Form) {
    let secret = "correct horse battery staple";
    let sidecar = Sidecar::start_with(&form, &[("LOG_LEVEL", "trace")]).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let conversation = new_conversation(&mut memory, &user).await;
    save_text(&mut memory, &conversation, secret).await;
    let read = memory.get_history(history(&conversation)).await.unwrap();
    assert_eq!(contents(&read.into_inner().messages), [secret]);
    let bad = vec![
        message(Role::User, secret),
        message(Role::User, &format!("{secret}\0")),
    ];
    memory
        .save_messages(save(&conversation, bad))
        .await
        .unwrap_err();
    for line in sidecar.log() {
        assert!(!line.contains(secret), "{line}");
    }
}

#[tokio::test]
async fn start_fails_with_one_line_if_a_setting_is_invalid() {
    for (name, value) in [
        ("SESSION_TTL_MINUTES", "soon"),
        ("MAX_HISTORY_MESSAGES", "0"),
        ("LISTEN_ADDR", "0.0.0.0:0"),
        ("DATABASE_URL", "mysql://user:hunter2@host/db"),
        (
            "DATABASE_URL",
            "postgres://user:hunter2@host/db?sslmode=verify",
        ),
        (
            "DATABASE_URL",
            "postgres://user:hunter2@host/db?ssl_mode=require",
        ),
        (
            "DATABASE_URL",
            "postgres://user:hunter2@host/db?sslrootcert=/nonexistent",
        ),
        ("DATABASE_URL", "http://user:hunter2@host/db"),
        ("REDIS_URL", "http://user:hunter2@host"),
        ("REDIS_URL", "redis-sentinel://user:hunter2@host"),
        ("REDIS_DB", "256"),
        ("SESSION_TTL_MINUTES", "30m"),
        ("MAX_REQUEST_BYTES", "4MB"),
        ("REDIS_PASSWORD_FILE", "/nonexistent"),
        ("LOG_LEVEL", "conversation_memory=loud"),
        ("TEXT_SEARCH_CONFIG", "klingon"),
        ("TEXT_SEARCH_LANGUAGES", "klingon"),
    ] {
        let output = command()
            .env(name, value)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{name}");
        let output_text = String::from_utf8(output.stderr).unwrap();
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        assert!(
            output_text.contains(name) || output_text.contains(&flag),
            "{output_text}"
        );
        assert_eq!(output_text.lines().count(), 1, "{output_text}");
        assert!(!output_text.contains("hunter2"), "{output_text}");
    }
}

#[tokio::test]
async fn empty_variables_are_ignored() {
    let empty = [
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "REDIS_HOST",
        "REDIS_DB",
        "DATABASE_URL_FILE",
        "SESSION_TTL_MINUTES",
        "MIGRATE_ON_START",
        "LOG_LEVEL",
    ]
    .map(|name| (name, ""));
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &empty).await;
    sidecar
        .memory()
        .begin_turn(begin(&new_user()))
        .await
        .unwrap();
}

#[tokio::test]
async fn help_shows_every_setting_and_no_secret() {
    let output = command()
        .arg("--help")
        .env("POSTGRES_PASSWORD", "hunter2")
        .env("REDIS_URL", "redis://:hunter2@host")
        .output()
        .unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for name in [
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "POSTGRES_DB",
        "POSTGRES_USER",
        "POSTGRES_PASSWORD",
        "POSTGRES_PASSWORD_FILE",
        "DATABASE_URL",
        "DATABASE_URL_FILE",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_PASSWORD",
        "REDIS_PASSWORD_FILE",
        "REDIS_DB",
        "REDIS_URL",
        "REDIS_URL_FILE",
        "REDIS_KEY_PREFIX",
        "SESSION_TTL_MINUTES",
        "MAX_HISTORY_MESSAGES",
        "TEXT_SEARCH_LANGUAGES",
        "LISTEN_ADDR",
        "OPS_ADDR",
        "DATA_DIR",
        "LOG_FORMAT",
        "serve",
        "migrate",
        "healthcheck",
        "inspect-window",
    ] {
        assert!(help.contains(name), "{name}");
    }
    assert!(!help.contains("hunter2"));
}

#[tokio::test]
async fn healthcheck_fails_without_a_server() {
    let output = command()
        .arg("healthcheck")
        .env("LISTEN_ADDR", "127.0.0.1:1")
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}
