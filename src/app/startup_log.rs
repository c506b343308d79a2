use crate::{config::ServerConfig, transport::Address};

/// What the log says of the listeners.
#[derive(Debug)]
pub(super) struct StartupLog {
    /// Where they are, with the ports that were free; TCP comes first.
    addresses: Vec<Address>,
    /// Whether calls on ports can be read on their way.
    is_plain: bool,
    /// Whether ports take calls from just anybody.
    is_open: bool,
}

impl StartupLog {
    pub(super) fn new(addresses: Vec<Address>, server: &ServerConfig) -> Self {
        Self {
            addresses,
            is_plain: server.tls.is_none(),
            is_open: server.takes_anybody(),
        }
    }

    /// Says where calls are served, and how to try it.
    pub(super) fn say(&self) {
        for address in &self.addresses {
            tracing::info!(%address, "serving");
            if address.is_exposed() && self.is_open {
                tracing::warn!(%address, "whoever reaches it may call");
            } else if address.is_exposed() && self.is_plain {
                tracing::warn!(%address, "tokens can be read on their way: set TLS_CERT_FILE");
            }
        }
        if let Some(Address::Tcp(address)) = self.addresses.first()
            && self.is_open
            && self.is_plain
        {
            tracing::info!(
                "try: grpcurl -plaintext -d '{{\"user_id\":\"u1\"}}' {address} \
                 conversation_memory.v1.ConversationMemory/BeginTurn"
            );
        }
    }
}
