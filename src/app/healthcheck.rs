use std::{
    error::Error as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::Failure;
use crate::{config::ServerConfig, transport::Address};

const LIMIT: Duration = Duration::from_secs(2);

/// Asks the sidecar that has these settings whether it is serving.
pub(super) async fn check(server: &ServerConfig) -> Result<(), Failure> {
    let address = where_to_ask(server);
    let channel = Endpoint::try_from(match &address {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    })?
    .connect_timeout(LIMIT)
    .timeout(LIMIT)
    .connect()
    .await
    .map_err(|_| format!("nothing answers at {address}"))?;
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .map_err(|status| match status.source() {
            Some(_) => format!("{address} closed the connection"),
            None => format!("{address} answers {}", status.code()),
        })?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        _ => Err(format!("{address} is not serving").into()),
    }
}

/// The first listener without TLS, which could ask for a certificate, or else the
/// operations port.
fn where_to_ask(server: &ServerConfig) -> Address {
    let is_plain = |address: &&Address| server.tls.is_none() || matches!(address, Address::Unix(_));
    match server.listen.iter().find(is_plain) {
        Some(Address::Tcp(address)) => Address::Tcp(reachable(*address)),
        Some(address) => address.clone(),
        None => Address::Tcp(reachable(server.ops.addr)),
    }
}

/// An address that means every interface is reached over loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
