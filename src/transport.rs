//! The listeners of the API on TCP and on Unix sockets, TLS, and the HTTP server with the limits on
//! connections, on the bytes of requests and responses, and on the time that peers take.

mod address;
mod byte_budgets;
mod certificate;
mod connection;
mod connection_state;
mod displacement;
mod exchange;
mod exchange_body;
mod listener;
mod open_connections;
mod overhead;
mod server;
mod tls;
mod unix;
mod unstarted;
mod watch;

pub(crate) use self::tls::certificates;
pub use self::{
    address::{Address, InvalidAddress, parse_tcp},
    byte_budgets::ByteBudgets,
    connection::Connection,
    exchange::Exchange,
    exchange_body::{RequestFailure, RequestRejection},
    listener::{Listener, incoming},
    open_connections::OpenConnections,
    server::{ServerOptions, serve},
    tls::{Tls, TlsFiles},
};
