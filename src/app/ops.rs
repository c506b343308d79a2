use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::{Failure, listeners};
use crate::{
    config::Ops, rpc::guard::ServingState, telemetry::PrometheusMetrics, transport::Listener,
};

/// Listens on the operations port, or does without it when nobody asked for it
/// and it is taken.
pub(super) async fn bind_or_pass(ops: Ops) -> Result<Option<Listener>, Failure> {
    match listeners::bind_ops(ops.addr).await {
        Ok(listener) => {
            let address = listener.address()?;
            tracing::info!(%address, "operations");
            Ok(Some(listener))
        }
        Err(error) if ops.required => Err(error),
        Err(error) => {
            tracing::warn!(%error, "no operations port: set OPS_ADDR to another one");
            Ok(None)
        }
    }
}

/// `/livez`: the process answers. `/readyz`: it has seen its store once; it
/// stays ready without Redis or the store, because the pod is no better off
/// without its sidecar. `/metrics`, for Prometheus. And gRPC health.
pub(super) fn routes<H: Health>(
    ready: watch::Receiver<ServingState>,
    health: HealthServer<H>,
    prometheus: PrometheusMetrics,
) -> Routes {
    let readyz = move || async move {
        if *ready.borrow() == ServingState::Ready {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    };
    let probes = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || async move { metrics(&prometheus) }));
    Routes::from(probes).add_service(health)
}

fn metrics(prometheus: &PrometheusMetrics) -> Response {
    match prometheus.encode() {
        Ok(text) => ([(CONTENT_TYPE, PrometheusMetrics::MEDIA_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
