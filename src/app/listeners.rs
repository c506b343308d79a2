use std::net::SocketAddr;

use super::Failure;
use crate::transport::{Address, Listener};

/// Listens at each address of the API.
pub(super) async fn bind(addresses: &[Address]) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        listeners.push(bind_one("LISTEN_ADDR", address).await?);
    }
    Ok(listeners)
}

/// Listens at the operations port.
pub(super) async fn bind_ops(address: SocketAddr) -> Result<Listener, Failure> {
    bind_one("OPS_ADDR", &Address::Tcp(address)).await
}

async fn bind_one(setting: &str, address: &Address) -> Result<Listener, Failure> {
    Listener::bind(address)
        .await
        .map_err(|error| format!("{setting} {address} cannot be listened on: {error}").into())
}
