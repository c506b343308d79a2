//! Servers to compare with. Each is a process of its own, so that its CPU time can be measured: this
//! program, started again with other arguments.

use std::{
    convert::Infallible,
    env,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use conversation_memory::proto::{GetHistoryRequest, GetHistoryResponse};
use fred::{
    clients::Client,
    interfaces::ClientLike as _,
    types::{Builder, ClusterHash, CustomCommand, config::Config},
};
use futures_util::future::BoxFuture;
use prost::Message;
use tonic::{
    Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::telemetry;

/// First argument of a process that serves.
pub(crate) const SERVE: &str = "serve-baseline";

/// Process that serves until it is dropped.
#[derive(Debug)]
pub(super) struct Bare {
    process: Child,
    pub(super) address: SocketAddr,
}

impl Bare {
    /// Starts a tonic handler that reads the response's bytes from Redis and decodes them.
    pub(super) fn redis_get(redis_url: &str) -> Self {
        Self::start(&["get", redis_url])
    }

    /// Starts a tonic handler that responds with a number of bytes.
    pub(super) fn echo(length: usize) -> Self {
        Self::start(&["echo", &length.to_string()])
    }

    /// Starts a collector that accepts every request.
    pub(super) fn collector() -> Self {
        Self::start(&["collector"])
    }

    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .arg(SERVE)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        Self {
            process,
            address: line.trim().parse().unwrap(),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Key of a response in Redis.
fn key(conversation_id: &str) -> String {
    format!("bench:{conversation_id}")
}

/// Serves as the arguments after [`SERVE`] demand, until standard input ends.
pub(crate) fn serve(arguments: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    runtime.block_on(async {
        match arguments {
            [kind, url] if kind == "get" => serve_handler(Get(connect(url).await)).await,
            [kind, length] if kind == "echo" => {
                let data = vec![b'x'; length.parse().unwrap()].into();
                serve_handler(Echo(data)).await;
            }
            _ => {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                println!("{}", listener.local_addr().unwrap());
                telemetry::collect(listener, true).await;
            }
        }
    });
    ExitCode::SUCCESS
}

/// Connects to Redis.
pub(super) async fn connect(url: &str) -> Client {
    let config = Config::from_url(url).unwrap();
    let client = Builder::from_config(config).build().unwrap();
    client.init().await.unwrap();
    client
}

/// Stores the response for a conversation.
pub(super) async fn set(redis: &Client, conversation_id: &str, response: Vec<u8>) {
    let arguments = [key(conversation_id).into_bytes(), response].map(Bytes::from);
    let _: () = redis
        .custom(command("SET"), arguments.to_vec())
        .await
        .unwrap();
}

/// The interface with typed commands is a feature of fred that the program does not use.
fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

async fn serve_handler<H: Handler>(handler: H) {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let incoming = incoming.with_nodelay(Some(true));
    println!("{}", incoming.local_addr().unwrap());
    let server = Server::builder().add_service(Handled(handler));
    server.serve_with_incoming(incoming).await.unwrap();
}

/// Handler of all methods.
trait Handler:
    UnaryService<GetHistoryRequest, Response: Message + Default + 'static, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

/// Responds with the bytes that Redis has for the conversation.
#[derive(Clone)]
struct Get(Client);

impl Handler for Get {}

impl UnaryService<GetHistoryRequest> for Get {
    type Response = GetHistoryResponse;
    type Future = BoxFuture<'static, Result<Response<GetHistoryResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<GetHistoryRequest>) -> Self::Future {
        let redis = self.0.clone();
        Box::pin(async move {
            let key = key(&request.get_ref().conversation_id);
            let bytes: Bytes = redis.custom(command("GET"), vec![key]).await.unwrap();
            Ok(Response::new(GetHistoryResponse::decode(bytes).unwrap()))
        })
    }
}

/// Responds with the same bytes.
#[derive(Clone)]
struct Echo(Bytes);

impl Handler for Echo {}

#[derive(Clone, PartialEq, Message)]
struct Data {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

impl UnaryService<GetHistoryRequest> for Echo {
    type Response = Data;
    type Future = std::future::Ready<Result<Response<Data>, Status>>;

    fn call(&mut self, _: tonic::Request<GetHistoryRequest>) -> Self::Future {
        let data = self.0.clone();
        std::future::ready(Ok(Response::new(Data { data })))
    }
}

/// Service with a handler, as tonic generates it.
#[derive(Clone)]
struct Handled<H>(H);

impl<H> NamedService for Handled<H> {
    const NAME: &'static str = "conversation_memory.v1.ConversationMemory";
}

impl<H: Handler> Service<http::Request<Body>> for Handled<H> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = self.0.clone();
        Box::pin(async move {
            let codec = ProstCodec::<H::Response, GetHistoryRequest>::default();
            Ok(Grpc::new(codec).unary(handler, request).await)
        })
    }
}
