//! How callers reach the API: listeners on TCP and on Unix sockets, TLS, the limit on
//! connections. What comes out of it are streams of bytes, each with what is known of the
//! process at its other end.

mod address;
mod certificate;
mod connection;
mod limit;
mod listener;
mod tls;
mod unix;

pub use self::{
    address::{Address, BadAddress},
    connection::Connection,
    limit::Connections,
    listener::{Listener, incoming},
    tls::{Tls, TlsFiles},
};
