//! Requests of the API, which pass through the transcoder, the decoders, the handlers, and an embedded
//! store.

use std::{
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use conversation_memory::{
    fairness::FairSemaphore,
    memory::{Dependencies, Memory},
    proto::{
        DESCRIPTORS, ListBranchesRequest, ListConversationsRequest, ListMessagesRequest,
        SearchMessagesRequest,
    },
    recent::none::NoWindow,
    rpc::{self, ServiceConfig, rest},
    sessions::in_process::{InProcessLimits, InProcessSessions},
    store::{Store as _, sqlite::SqliteStore},
    tokens::TokenEncoding,
};
use domain::{Limits, SystemClock, UuidV7};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status, body::Body};
use tower::{Layer as _, ServiceExt as _, util::BoxCloneSyncService};

const MAX_REQUEST_BYTES: usize = 1 << 20;
const CONVERSATION: &str = "0190cafe-0000-7000-8000-000000000001";

/// The service in this process.
struct Service {
    runtime: Runtime,
    api: BoxCloneSyncService<Request<Body>, Response<Body>, std::convert::Infallible>,
    /// Paths of the methods.
    methods: Vec<String>,
    _folder: TempDir,
}

static SERVICE: LazyLock<Mutex<Service>> = LazyLock::new(|| Mutex::new(Service::new()));

/// Calls a method. The first byte selects it, the others are the request.
pub(crate) fn grpc_request(data: &[u8]) {
    if let Some((method, message)) = data.split_first() {
        let service = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
        let path = &service.methods[usize::from(*method) % service.methods.len()];
        service.call(path, message);
    }
}

/// Requests a page of a list. The first byte selects the list, the others are the token.
pub(crate) fn page_token(data: &[u8]) {
    let Some((list, token)) = data.split_first() else {
        return;
    };
    let Ok(page_token) = String::from_utf8(token.to_owned()) else {
        return;
    };
    let conversation_id = CONVERSATION.to_owned();
    let user_id = "ana".to_owned();
    let (method, request) = match list % 4 {
        0 => {
            let request = ListMessagesRequest {
                conversation_id,
                page_token,
                ..ListMessagesRequest::default()
            };
            ("ListMessages", request.encode_to_vec())
        }
        1 => {
            let request = ListBranchesRequest {
                conversation_id,
                page_token,
                ..ListBranchesRequest::default()
            };
            ("ListBranches", request.encode_to_vec())
        }
        2 => {
            let request = ListConversationsRequest {
                user_id,
                page_token,
                ..ListConversationsRequest::default()
            };
            ("ListConversations", request.encode_to_vec())
        }
        _ => {
            let request = SearchMessagesRequest {
                user_id,
                query: "word".to_owned(),
                page_token,
                ..SearchMessagesRequest::default()
            };
            ("SearchMessages", request.encode_to_vec())
        }
    };
    let service = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = format!("/conversation_memory.v1.ConversationMemory/{method}");
    service.call(&path, &request);
}

/// Makes a REST call. The first line is method and path, the others are the body.
pub(crate) fn rest_request(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (line, body) = data.split_at(end.unwrap_or(data.len()));
    let Some((method, path)) = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split_once(' '))
    else {
        return;
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(body_of(body.get(1..).unwrap_or_default()));
    let Ok(request) = request else {
        return;
    };
    let service = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
    // Without authentication, the transcoder rejects requests that do not become calls as an internal
    // error, so that only a panic is a defect.
    drop(service.respond(request));
}

fn body_of(bytes: &[u8]) -> Body {
    Body::new(Full::new(Bytes::copy_from_slice(bytes)).map_err(|never| match never {}))
}

impl Service {
    fn new() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let folder = tempfile::tempdir().expect("a folder can be created");
        let memory = runtime.block_on(embedded(folder.path()));
        let config = ServiceConfig {
            limits: Limits::default(),
            max_request_bytes: MAX_REQUEST_BYTES,
            require_user_id: false,
            reflection: false,
        };
        let (_, health) = tonic_health::server::health_reporter();
        let api = rpc::api(&memory, config, health).expect("the services can be created");
        let rest = rest::layer(MAX_REQUEST_BYTES, false, false).expect("the rules are valid");
        Self {
            runtime,
            api: BoxCloneSyncService::new(rest.layer(api)),
            methods: methods(),
            _folder: folder,
        }
    }

    /// Calls a method with an encoded request.
    fn call(&self, path: &str, message: &[u8]) {
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        framed.put_slice(message);
        let request = Request::post(path)
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body_of(&framed))
            .expect("the request is valid");
        let (response, trailers) = self.respond(request);
        let status =
            Status::from_header_map(response.headers()).unwrap_or_else(|| match trailers {
                Ok(trailers) => Status::from_header_map(&trailers)
                    .unwrap_or_else(|| panic!("{path} has no status: {response:?}")),
                Err(status) => status,
            });
        let is_defect = match status.code() {
            // Prost's error about bytes that are not protobuf.
            Code::Internal => !status.message().starts_with("failed to decode Protobuf"),
            code => matches!(code, Code::Unknown | Code::DataLoss),
        };
        assert!(!is_defect, "{path} fails with {status:?}");
    }

    fn respond(&self, request: Request<Body>) -> (Response<()>, Result<HeaderMap, Status>) {
        self.runtime.block_on(async {
            let response = self.api.clone().oneshot(request).await;
            let (head, body) = response.unwrap_or_else(|never| match never {}).into_parts();
            let body = body.collect().await;
            let trailers = body.map(|body| body.trailers().cloned().unwrap_or_default());
            (Response::from_parts(head, ()), trailers)
        })
    }
}

async fn embedded(folder: &Path) -> Memory {
    let store = SqliteStore::open(&folder.join("memory.db")).expect("the store can be opened");
    store
        .prepare(true)
        .await
        .expect("the schema can be created");
    let clock = Arc::new(SystemClock);
    Memory::new(Dependencies {
        store: Arc::new(store),
        recent: Arc::new(NoWindow),
        sessions: Arc::new(InProcessSessions::new(
            Duration::from_mins(1),
            clock.clone(),
            InProcessLimits::default(),
        )),
        clock,
        ids: Arc::new(UuidV7),
        writes: TaskTracker::new(),
        write_permits: FairSemaphore::new(8),
        read_permits: FairSemaphore::new(8),
        response_bytes: FairSemaphore::new(1 << 20),
        import_permit: FairSemaphore::new(1),
        default_limit: 6,
        compaction_tokens: 0,
        token_encoding: TokenEncoding::None,
    })
}

/// Paths of all methods of the contract.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors are valid");
    let mut paths = Vec::new();
    for file in set.file {
        let package = file.package().to_owned();
        for service in file.service {
            let methods = service.method.iter();
            paths.extend(
                methods.map(|method| format!("/{package}.{}/{}", service.name(), method.name())),
            );
        }
    }
    paths
}
