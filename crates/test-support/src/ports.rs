//! Free ports, for servers that a test gives an address in advance or starts more than once.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// Ports that the kernel gives to no outgoing connection. Such a connection would prevent a stopped
/// server from listening again.
const FIRST: u16 = 10_000;
const COUNT: u64 = 10_000;

/// A node of a Redis Cluster listens on a second port as well, at this distance.
const CLUSTER_BUS: u16 = 10_000;

/// Returns a port of the loopback interface on which nothing listens. It is a random one, so that
/// concurrent tests hardly ever get the same.
pub fn free_port() -> u16 {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let random = RandomState::new().hash_one(FIRST) % COUNT;
        let port = FIRST + u16::try_from(random).unwrap();
        if is_free(port) && is_free(port + CLUSTER_BUS) {
            return port;
        }
    }
}

/// Returns an address of the loopback interface with a free port.
pub fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
