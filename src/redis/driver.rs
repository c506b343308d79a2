use std::time::Duration;

use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike as _, EventInterface as _},
    types::{
        ClusterStateChange,
        config::{Config, ConnectionConfig, PerformanceConfig, Server, TcpConfig},
    },
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::task::AbortOnDropHandle;

use super::{cause, fault::Fault};

/// Attempts to send a command.
pub(super) const MAX_ATTEMPTS: u32 = 1;
/// Upper bound on calls that wait to be sent.
const MAX_QUEUED_CALLS: usize = 4_096;
/// Time limit of the library for connecting to a node, and for its own commands. It is longer than
/// the limits of this module, which count running time.
const LIBRARY_TIMEOUT: Duration = Duration::from_secs(2);

/// Creates a client for one connection: without a policy it does not reconnect.
pub(super) fn client(mut config: Config) -> Client {
    // Without this the client would need a policy for its first connection.
    config.fail_fast = true;
    let performance = PerformanceConfig {
        // Calls have limits of their own, which count running time.
        default_command_timeout: Duration::ZERO,
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: LIBRARY_TIMEOUT,
        internal_command_timeout: LIBRARY_TIMEOUT,
        max_command_attempts: MAX_ATTEMPTS,
        max_command_buffer_len: MAX_QUEUED_CALLS,
        tcp: TcpConfig {
            nodelay: Some(true),
            ..TcpConfig::default()
        },
        ..ConnectionConfig::default()
    };
    Client::new(config, Some(performance), Some(connection), None)
}

/// Task of the library that drives a connection. When this value is dropped, the sockets are closed
/// at once and outstanding calls fail.
#[derive(Debug)]
pub(super) struct Driver(AbortOnDropHandle<Result<(), Error>>);

impl Driver {
    /// Starts to connect.
    pub(super) fn start(client: &Client) -> Self {
        Self(AbortOnDropHandle::new(client.connect()))
    }

    /// Waits until the connection has ended. Must not be called again after that.
    pub(super) async fn ended(&mut self) -> Fault {
        match (&mut self.0).await {
            Ok(Err(error)) => Fault::Failed(cause::describe(&error)),
            _ => Fault::Failed("the connection was closed".to_owned()),
        }
    }
}

/// Changes of a cluster that the library follows on a connection.
pub(super) struct ClusterChanges {
    changes: Receiver<Vec<ClusterStateChange>>,
    connected: Receiver<Server>,
}

/// Change of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterChange {
    /// Hash slots were moved.
    Slots,
    /// A node was added, removed or connected to again.
    Nodes,
}

impl ClusterChanges {
    pub(super) fn of(client: &Client) -> Self {
        Self {
            changes: client.cluster_change_rx(),
            connected: client.reconnect_rx(),
        }
    }

    /// Waits for the next change. For a single server there is none.
    pub(super) async fn next(&mut self) -> ClusterChange {
        let changes = tokio::select! {
            changes = self.changes.recv() => changes,
            connected = self.connected.recv() => connected.map(|node| vec![ClusterStateChange::Add(node)]),
        };
        match changes {
            Ok(changes)
                if changes
                    .iter()
                    .all(|change| *change == ClusterStateChange::Rebalance) =>
            {
                ClusterChange::Slots
            }
            // Some changes were missed.
            Ok(_) | Err(RecvError::Lagged(_)) => ClusterChange::Nodes,
            // The client has ended, which its driver reports.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
