use std::{error::Error as _, time::Duration};

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::Failure;
use crate::{commands::connection::endpoint, config::Config, transport::Address};

/// Time limit for connecting, and for the response.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Checks whether the sidecar with these settings is serving.
///
/// # Errors
/// Returns an error if it cannot be reached, or is not serving.
pub(super) async fn check(config: &Config) -> Result<(), Failure> {
    let address = target(config);
    let channel = endpoint(&address)?
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT)
        .connect()
        .await
        .map_err(|_| format!("cannot connect to {address}"))?;
    let response = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .map_err(|status| match status.source() {
            Some(_) => format!("{address} closed the connection"),
            None => format!("health check of {address} failed: {}", status.code()),
        })?;
    match response.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        _ => Err(format!("{address} is not serving").into()),
    }
}

/// Returns the first listener without TLS, or else the operations port. With TLS, the server
/// might require a client certificate, which this command does not have.
fn target(config: &Config) -> Address {
    let has_tls = config.auth.tls.is_some();
    let is_plaintext = |address: &&Address| !has_tls || matches!(address, Address::Unix(_));
    match config.server.listen.iter().find(is_plaintext) {
        Some(address) => address.clone(),
        None => Address::Tcp(config.server.ops.addr),
    }
}
