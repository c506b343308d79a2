use std::{io, time::Duration};

use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{self, Server, server::TcpIncoming},
};

use super::{guard::Guard, observe::Observe, rest::Rest};

/// How long to wait before accepting again when accepting failed. Out of file
/// descriptors it fails at once, and would take a whole core doing so.
const ACCEPT_PAUSE: Duration = Duration::from_millis(75);

/// Pings that find dead peers, so that their streams end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most calls at once on one connection; further ones wait in the client.
const MAX_STREAMS: u32 = 1024;

/// The most bytes of a call's metadata: `baggage` can carry what an agent knows.
const MAX_METADATA: u32 = 64 << 10;

/// Serves gRPC and, over HTTP/1 and HTTP/2, REST until `stop`, then until the last
/// connection has left.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    (rest, observe, guard): (Rest, Observe, Guard),
    stop: CancellationToken,
) -> Result<(), transport::Error> {
    server()
        .accept_http1(true)
        .layer(rest)
        .layer(observe)
        .layer(guard)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming(listener), stop.cancelled_owned())
        .await
}

/// Serves probes, over HTTP/1 and gRPC, until `stop`.
pub async fn serve_probes(
    listener: TcpListener,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), transport::Error> {
    server()
        .accept_http1(true)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming(listener), stop.cancelled_owned())
        .await
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_METADATA)
}

fn incoming(
    listener: TcpListener,
) -> impl tokio_stream::Stream<Item = io::Result<tokio::net::TcpStream>> {
    TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .with_keepalive(Some(Duration::from_mins(1)))
        .then(async |accepted| {
            if let Err(error) = &accepted {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            accepted
        })
}
