use std::time::Duration;

use grpc_json_transcoding::TranscodingLayer;
use http::Request;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::{Layer as _, service_fn, util::MapRequestLayer};
use tower_http::validate_request::ValidateRequestHeaderLayer;

use super::{
    Api,
    admit::{Admission, Authenticator},
    guard::{Guard, ProbeGuard},
    observe::Observe,
    status,
    web::WebGuard,
};
use crate::transport::{self, ByteBudgets, Connection, OpenConnections, ServerOptions};

/// Limit on the concurrent calls of one connection. The client delays calls beyond it.
///
/// Twice the number is the limit on calls that are cancelled before they are accepted; beyond that, the
/// connection is closed and all of its calls fail. After a stop of the process, everything that has
/// arrived meanwhile is read before the first call is accepted, and the calls whose callers no longer
/// waited are cancelled together. The library's default is 20. A higher limit would have no effect: the
/// library also closes a connection on which about 2,400 small frames of requests have not been read.
const MAX_STREAMS: u32 = 1024;

/// Limit on the concurrent calls of one connection to the operations port, which has few clients.
const MAX_PROBE_STREAMS: u32 = 16;

/// Limits on the bytes of requests and responses at the operations port.
const MAX_PROBE_BYTES: usize = 1 << 20;

/// Limit on the duration of a call of the operations port.
const MAX_PROBE_TIME: Duration = Duration::from_secs(10);

/// Age at which a connection whose caller has presented a certificate is closed. The
/// certificate may have expired meanwhile, and a new connection has to present it again.
const MAX_AUTHENTICATED_AGE: Duration = Duration::from_hours(1);

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

/// Limits of the server of the API.
#[derive(Debug)]
pub struct ServerLimits {
    /// Limit on the connections that are open at the same time.
    pub connections: OpenConnections,
    /// Bytes of requests and responses in progress.
    pub budgets: ByteBudgets,
    /// Duration of a call.
    pub call_time: Duration,
    /// Whether callers have to present a certificate.
    pub requires_certificates: bool,
}

/// Serves gRPC, and REST over HTTP/1 and HTTP/2, until `stop`, and then until the last
/// connection is closed.
pub async fn serve(
    incoming: impl Stream<Item = Connection> + Send,
    api: Api,
    layers: CallLayers,
    limits: ServerLimits,
    stop: CancellationToken,
) {
    let guarded = layers.guard.layer(api);
    let admitted = ValidateRequestHeaderLayer::custom(layers.admission).layer(guarded);
    let observed = layers.observe.layer(admitted);
    let transcoded = layers.rest.layer(observed);
    let service = MapRequestLayer::new(move |request: Request<Body>| {
        layers.authenticator.authenticate(request)
    })
    .layer(transcoded);
    let service = layers.web.layer(service);
    let options = ServerOptions {
        max_streams: MAX_STREAMS,
        max_exchange_time: limits.call_time,
        max_connection_age: limits
            .requires_certificates
            .then_some(MAX_AUTHENTICATED_AGE),
        budgets: limits.budgets.into(),
        request_rejection: status::request_failed,
    };
    transport::serve(incoming, limits.connections, service, options, stop).await;
}

/// Serves health probes over HTTP/1 and gRPC until `stop`, behind `web`.
pub async fn serve_probes(
    incoming: impl Stream<Item = Connection> + Send,
    connections: OpenConnections,
    routes: Routes,
    web: WebGuard,
    stop: CancellationToken,
) {
    let options = ServerOptions {
        max_streams: MAX_PROBE_STREAMS,
        max_exchange_time: MAX_PROBE_TIME,
        max_connection_age: None,
        budgets: ByteBudgets::new(MAX_PROBE_BYTES, MAX_PROBE_BYTES, MAX_PROBE_BYTES).into(),
        request_rejection: status::request_failed,
    };
    let (routes, probes) = (routes.prepare(), ProbeGuard::new(MAX_PROBE_TIME));
    let service = web.layer(service_fn(move |request| {
        probes.clone().call(routes.clone(), request)
    }));
    transport::serve(incoming, connections, service, options, stop).await;
}
