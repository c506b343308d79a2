//! The connection of a command to a sidecar.

use std::{
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use http::Uri;
use tokio::time::timeout;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{Failure, tls::Dialer};
use crate::{
    config::{ConnectionArgs, Target},
    os_error,
    proto::conversation_memory_client::ConversationMemoryClient,
    small_file,
    transport::Address,
};

/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Client of a command.
pub(super) type Client = ConversationMemoryClient<InterceptedService<Channel, Token>>;

/// Adds the caller's token to each request.
#[derive(Clone)]
pub(super) struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Creates an endpoint without TLS for an address on which a sidecar listens.
///
/// # Errors
/// Fails if the address cannot be used by a client.
pub(crate) fn endpoint(address: &Address) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::try_from(match address {
        Address::Tcp(address) => format!("http://{}", connectable(*address)),
        Address::Unix(path) => format!("unix:{}", path.display()),
    })?;
    // A name that every server accepts, whatever its ALLOWED_HOSTS.
    Ok(endpoint.origin(Uri::from_static("http://localhost")))
}

/// Replaces an unspecified IP address, which means every interface, by loopback.
fn connectable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Connects to the sidecar of the arguments, or to the first of the addresses that the settings
/// name. The connection is opened again when it is lost.
///
/// # Errors
/// Fails if the sidecar cannot be reached, or the file of the token cannot be read.
pub(super) async fn connect(args: &ConnectionArgs, listen: &[Address]) -> Result<Client, Failure> {
    let first = || listen.first().cloned().map(Target::Plain);
    let target = args.address.clone().or_else(first);
    let target = target.ok_or("--address is required")?;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let failed = |error: &(dyn Error + 'static)| {
        format!(
            "cannot connect to a sidecar at {target}: {}",
            root_cause(error)
        )
    };
    let channel = match &target {
        Target::Plain(_) if args.ca_file.is_some() || args.cert_file.is_some() => {
            return Err(
                "--ca-file and --cert-file require an address with TLS: https://HOST:PORT".into(),
            );
        }
        Target::Plain(address) => {
            let endpoint = endpoint(address)?.connect_timeout(CONNECT_TIMEOUT);
            endpoint.connect().await
        }
        Target::Tls { host, port } => {
            let dialer = Dialer::new(host, *port, args)?;
            let checked = timeout(CONNECT_TIMEOUT, dialer.clone().check()).await;
            checked
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|error| failed(&error))?;
            let endpoint = Endpoint::try_from(target.to_string())?.connect_timeout(CONNECT_TIMEOUT);
            let connector = service_fn(move |_: Uri| dialer.clone().dial());
            endpoint.connect_with_connector(connector).await
        }
    };
    let channel = channel.map_err(|error| failed(&error))?;
    Ok(ConversationMemoryClient::with_interceptor(
        channel,
        Token(token),
    ))
}

/// Describes what an error was caused by.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) => os_error::describe(error),
        None => cause.to_string(),
    }
}

fn read_token(path: &Path) -> Result<MetadataValue<Ascii>, Failure> {
    let file = small_file::read(path).map_err(|error| {
        let cause = os_error::describe(&error);
        format!("cannot read the token in {}: {cause}", path.display())
    })?;
    let text = String::from_utf8_lossy(&file);
    let mut token: MetadataValue<Ascii> = format!("Bearer {}", text.trim())
        .parse()
        .map_err(|_| format!("{} does not contain a token", path.display()))?;
    token.set_sensitive(true);
    Ok(token)
}
