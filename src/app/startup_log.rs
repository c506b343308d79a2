use crate::{config::AuthConfig, transport::Address};

/// Log lines about the listeners, written when the sidecar becomes ready.
#[derive(Debug)]
pub(super) struct StartupLog {
    /// Bound addresses; TCP addresses precede Unix sockets.
    addresses: Vec<Address>,
    /// Whether TCP connections are not encrypted.
    is_plaintext: bool,
    /// Whether TCP callers need neither a token nor a client certificate.
    is_anonymous: bool,
}

impl StartupLog {
    pub(super) fn new(addresses: Vec<Address>, auth: &AuthConfig) -> Self {
        Self {
            addresses,
            is_plaintext: auth.tls.is_none(),
            is_anonymous: auth.allows_anonymous_tcp(),
        }
    }

    /// Logs each address, warns of addresses that are not protected, and logs a command that
    /// calls the API.
    pub(super) fn write(&self) {
        for address in &self.addresses {
            tracing::info!(%address, "serving");
            if address.is_exposed() && self.is_anonymous {
                tracing::warn!(%address, "callers are not authenticated on a non-loopback address");
            } else if address.is_exposed() && self.is_plaintext {
                tracing::warn!(%address, "tokens are sent in plaintext: set TLS_CERT_FILE");
            }
        }
        if let Some(Address::Tcp(address)) = self.addresses.first()
            && self.is_anonymous
            && self.is_plaintext
        {
            tracing::info!(
                "try: grpcurl -plaintext -d '{{\"user_id\":\"u1\"}}' {address} \
                 conversation_memory.v1.ConversationMemory/BeginTurn"
            );
        }
    }
}
