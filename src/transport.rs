//! The listeners of the API on TCP and on Unix sockets, TLS, and the limit on connections.
//!
//! The module turns accepted sockets into streams of bytes, each with the identity of its peer.

mod address;
mod certificate;
mod connection;
mod connection_limit;
mod listener;
mod tls;
mod unix;

pub use self::{
    address::{Address, InvalidAddress},
    connection::Connection,
    connection_limit::ConnectionLimit,
    listener::{Listener, incoming},
    tls::{Tls, TlsFiles},
};
