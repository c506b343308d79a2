use std::{io, time::Duration};

use grpc_json_transcoding::TranscodingLayer;
use http::Request;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    service::Routes,
    transport::{self, Server},
};

use tower::util::MapRequestLayer;
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::{
    admit::{Admission, Authenticator},
    guard::Guard,
    observe::Observe,
    web::WebGuard,
};
use crate::transport::Connection;

/// Interval and timeout of the pings that detect dead peers, so that their streams end.
///
/// The timeout also passes while either process is stopped, and it is evaluated before the reply
/// that has arrived meanwhile is read. It is therefore longer than any stop after which a caller
/// would still use the connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_mins(2);

/// Limit on the concurrent calls of one connection. The client delays calls beyond it.
const MAX_STREAMS: u32 = 1024;

/// Limit on the calls of one connection that are cancelled before they are accepted; beyond it,
/// the connection is closed and all of its calls fail.
///
/// After a stop of the process, everything that has arrived meanwhile is read before the first
/// call is accepted, and the calls whose callers no longer waited are cancelled together. The
/// library's default is 20. A cancelled call occupies memory for its metadata until it is
/// accepted. A higher limit would have no effect: the library also closes a connection on which
/// about 2,400 small frames of requests have not been read.
const MAX_UNACCEPTED_RESETS: usize = 2 * MAX_STREAMS as usize;

/// Limit on the concurrent calls of one connection to the operations port, which has few clients.
const MAX_PROBE_STREAMS: u32 = 16;

/// Age at which a connection whose caller has presented a certificate is closed. The
/// certificate may have expired meanwhile, and a new connection has to present it again.
const MAX_AUTHENTICATED_AGE: Duration = Duration::from_hours(1);

/// Limit on the bytes of a call's metadata. It allows for `baggage`, which can be large.
const MAX_METADATA_BYTES: u32 = 64 << 10;

/// Layers around the services, the outermost first.
#[derive(Clone, Debug)]
pub struct CallLayers {
    /// Rejects requests of web pages that are not trusted.
    pub web: WebGuard,
    /// Authenticates the caller.
    pub authenticator: Authenticator,
    /// Translates REST to gRPC.
    pub rest: TranscodingLayer,
    /// Records the call in traces and metrics.
    pub observe: Observe,
    /// Rejects unauthenticated callers, and limits the rate of the others.
    pub admission: Admission,
    /// Enforces the limits on calls and their deadlines.
    pub guard: Guard,
}

/// Serves gRPC, and REST over HTTP/1 and HTTP/2, until `stop`, and then until the last
/// connection is closed. `requires_certificates` is whether callers have to present a
/// certificate.
///
/// # Errors
/// Fails if the transport has failed.
pub async fn serve(
    incoming: impl Stream<Item = io::Result<Connection>> + Send,
    routes: Routes,
    layers: CallLayers,
    requires_certificates: bool,
    stop: CancellationToken,
) -> Result<(), transport::Error> {
    let mut server = server();
    if requires_certificates {
        server = server.max_connection_age(MAX_AUTHENTICATED_AGE);
    }
    server
        .layer(layers.web)
        .layer(MapRequestLayer::new(move |request: Request<Body>| {
            layers.authenticator.authenticate(request)
        }))
        .layer(layers.rest)
        .layer(layers.observe)
        .layer(ValidateRequestHeaderLayer::custom(layers.admission))
        .layer(layers.guard)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

/// Serves health probes over HTTP/1 and gRPC until `stop`, behind `web`.
///
/// # Errors
/// Fails if the transport has failed.
pub async fn serve_probes(
    incoming: impl Stream<Item = io::Result<Connection>> + Send,
    routes: Routes,
    web: WebGuard,
    stop: CancellationToken,
) -> Result<(), transport::Error> {
    server()
        .max_concurrent_streams(MAX_PROBE_STREAMS)
        .layer(web)
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
        .http2_max_pending_accept_reset_streams(Some(MAX_UNACCEPTED_RESETS))
        .http2_max_header_list_size(MAX_METADATA_BYTES)
}
