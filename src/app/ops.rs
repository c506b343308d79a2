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
    config::OpsConfig, rpc::guard::ServingState, telemetry::PrometheusMetrics, transport::Listener,
};

/// Binds the operations port. Returns `None` if the default port is in use.
pub(super) async fn bind(config: OpsConfig) -> Result<Option<Listener>, Failure> {
    match listeners::bind_ops(config.addr).await {
        Ok(listener) => {
            let address = listener.address()?;
            tracing::info!(%address, "serving operations");
            Ok(Some(listener))
        }
        Err(error) if config.is_required => Err(error),
        Err(error) => {
            tracing::warn!(
                "{error}; continuing without the operations port, set OPS_ADDR to another address"
            );
            Ok(None)
        }
    }
}

/// Routes of the operations port: gRPC health, and
///
/// - `/livez`: the process responds.
/// - `/readyz`: the store's schema has been validated once. Afterwards it does not depend on
///   Redis or on the store, because marking the pod as not ready would not restore either.
/// - `/metrics`: the metrics in the text format of Prometheus.
pub(super) fn routes<H: Health>(
    serving: watch::Receiver<ServingState>,
    health: HealthServer<H>,
    prometheus: PrometheusMetrics,
) -> Routes {
    let readyz = move || async move {
        if *serving.borrow() == ServingState::Serving {
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
            tracing::error!(%error, "cannot encode metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
