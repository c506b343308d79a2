//! Owners of conversations and sessions, and the description of the services.

use bytes::Bytes;
use conversation_memory::proto::{
    CreateSessionRequest, DESCRIPTORS, EndSessionRequest, ExtendSessionRequest, GetSessionRequest,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::client::{begin, contents_of, http, is_reflected};
use test_support::{
    new_id, new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(sessions_of_other_users_are_not_found);

/// Calls a method, unary or streaming, with one message.
async fn call(sidecar: &Sidecar, path: &str, message: &DynamicMessage) -> Option<Status> {
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<Bytes>>();
    let message = message.encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let request = Request::post(format!("http://{}{path}", sidecar.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let request = request.body(Full::from(body)).unwrap();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned();
    Status::from_header_map(&head.headers)
        .or_else(|| Status::from_header_map(&trailers.unwrap_or_default()))
}

/// A request with all ids except that of the user.
fn without_user(kind: &MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for field in kind.fields() {
        let is_id = field.name() == "id" || field.name().ends_with("_id");
        match field.kind() {
            Kind::String if is_id && field.name() != "user_id" => {
                message.set_field(&field, Value::String(new_id()));
            }
            Kind::Message(inner) if matches!(field.name(), "conversation" | "options") => {
                message.set_field(&field, Value::Message(without_user(&inner)));
            }
            _ => {}
        }
    }
    message
}

#[tokio::test]
async fn every_method_requires_user_id_if_configured() {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[("REQUIRE_USER_ID", "true")]).await;
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let mut methods = Vec::new();
    for service in pool.services() {
        methods.extend(service.methods());
    }
    assert!(methods.len() > 15);
    for method in methods {
        let (service, name) = (method.parent_service().full_name(), method.name());
        // Items without a user are those of the application.
        // A transfer needs an operator, and the operator's request needs the user, too.
        if service.ends_with(".StoreService") || name == "TransferConversation" {
            continue;
        }
        let request = without_user(&method.input());
        let path = format!("/{service}/{name}");
        let status = call(&sidecar, &path, &request).await.expect(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        let violations = status
            .get_details_bad_request()
            .expect(name)
            .field_violations;
        let field = violations[0].field.trim_start_matches("options.");
        assert_eq!(field, "user_id", "{name}: {status:?}");
    }
    let line = format!("GET /v1/conversations/{}", new_id());
    let refused = http(connect(&sidecar).await, &line, "").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
    assert!(refused.text.contains("user_id"), "{refused:?}");
    begin(&mut sidecar.memory()).await.unwrap();
}

async fn connect(sidecar: &Sidecar) -> TcpStream {
    TcpStream::connect(sidecar.address).await.unwrap()
}

async fn sessions_of_other_users_are_not_found(form: Form) {
    let sidecar = Sidecar::start(&form).await;
    let mut sessions = sidecar.sessions();
    let user = new_user();
    let create = CreateSessionRequest {
        user_id: user.clone(),
        ..CreateSessionRequest::default()
    };
    let created = sessions.create_session(create).await.unwrap().into_inner();
    let id = created.session.unwrap().id;
    let other = new_user();
    let unknown = new_id();
    let of = async |id: &str, user: &str| {
        let (session_id, user_id) = (id.to_owned(), user.to_owned());
        let mut sessions = sidecar.sessions();
        let get = GetSessionRequest {
            session_id: session_id.clone(),
            user_id: user_id.clone(),
        };
        let extend = ExtendSessionRequest {
            session_id: session_id.clone(),
            user_id: user_id.clone(),
        };
        let end = EndSessionRequest {
            session_id,
            user_id,
        };
        [
            sessions.get_session(get).await.err(),
            sessions.extend_session(extend).await.err(),
            sessions.end_session(end).await.err(),
        ]
    };
    let none = of(&unknown, &other).await.map(Option::unwrap);
    for (refused, none) in of(&id, &other).await.into_iter().zip(none) {
        let refused = refused.unwrap();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(refused.message(), none.message());
        let (of_id, of_none) = (contents_of(&refused).2, contents_of(&none).2);
        // The details name the id in the request, and differ in nothing else.
        let of_id = String::from_utf8_lossy(&of_id).replace(&id, &unknown);
        assert_eq!(of_id, String::from_utf8_lossy(&of_none));
    }
    assert!(of(&id, &user).await.iter().all(Option::is_none));
}

#[tokio::test]
async fn reflection_can_be_disabled() {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[("REFLECTION", "false")]).await;
    assert!(!is_reflected(sidecar.channel(), None).await);
    let answer = http(connect(&sidecar).await, "GET /openapi.json", "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    begin(&mut sidecar.memory()).await.unwrap();
    drop(sidecar);
    let sidecar = Sidecar::start(&form).await;
    assert!(is_reflected(sidecar.channel(), None).await);
}
