use std::{io, time::Duration};

use http::Request;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    service::Routes,
    transport::{self, Server},
};

use tower::util::MapRequestLayer;

use super::{
    admit::{Admit, Identify},
    guard::Guard,
    observe::Observe,
    rest::Rest,
};
use crate::transport::Connection;

/// Pings that find dead peers, so that their streams end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The most calls at once on one connection; further ones wait in the client.
const MAX_STREAMS: u32 = 1024;

/// The same on the operations port, where few ask.
const MAX_PROBE_STREAMS: u32 = 16;

/// How long a connection is used whose caller showed a certificate: the next one has to
/// show it again, which may have expired meanwhile.
const MAX_AGE: Duration = Duration::from_hours(1);

/// The most bytes of a call's metadata: `baggage` can carry what an agent knows.
const MAX_METADATA: u32 = 64 << 10;

/// What stands in front of every call, the outermost first.
#[derive(Clone, Debug)]
pub struct Layers {
    /// Judges who calls.
    pub identify: Identify,
    /// Makes REST gRPC.
    pub rest: Rest,
    /// Tells of the call.
    pub observe: Observe,
    /// Turns away who may not call.
    pub admit: Admit,
    /// Keeps the limits.
    pub guard: Guard,
}

/// Serves gRPC and, over HTTP/1 and HTTP/2, REST until `stop`, then until the last
/// connection has left. `shows_certificates`: callers have to.
pub async fn serve(
    incoming: impl Stream<Item = io::Result<Connection>> + Send,
    routes: Routes,
    layers: Layers,
    shows_certificates: bool,
    stop: CancellationToken,
) -> Result<(), transport::Error> {
    let mut server = server();
    if shows_certificates {
        server = server.max_connection_age(MAX_AGE);
    }
    server
        .layer(MapRequestLayer::new(move |request: Request<Body>| {
            layers.identify.mark(request)
        }))
        .layer(layers.rest)
        .layer(layers.observe)
        .layer(layers.admit)
        .layer(layers.guard)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

/// Serves probes, over HTTP/1 and gRPC, until `stop`.
pub async fn serve_probes(
    incoming: impl Stream<Item = io::Result<Connection>> + Send,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), transport::Error> {
    server()
        .max_concurrent_streams(MAX_PROBE_STREAMS)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

fn server() -> Server {
    Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_METADATA)
}
