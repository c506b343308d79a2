//! TLS of the connection to a sidecar.

use std::{io, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Failure;
use crate::{
    authorities::client_config, config::ConnectionArgs, os_error, small_file,
    transport::certificates,
};

/// What an HTTP/2 client sends first: the preface, and SETTINGS without a value.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Opens connections with TLS to a host, whose certificate is checked.
#[derive(Clone)]
pub(super) struct Dialer {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Dialer {
    /// Reads the files of the arguments.
    ///
    /// # Errors
    /// Fails if a file cannot be read or used.
    pub(super) fn new(host: &str, port: u16, args: &ConnectionArgs) -> Result<Self, Failure> {
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self {
            name: ServerName::try_from(host.clone())?,
            host,
            port,
            tls: TlsConnector::from(Arc::new(config(args)?)),
        })
    }

    /// Opens a connection, and performs the TLS handshake.
    ///
    /// # Errors
    /// Fails if the host cannot be reached, or does not have the name's certificate.
    pub(super) async fn dial(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(self.tls.connect(self.name, stream).await?))
    }

    /// Checks that the host accepts the caller's certificate, or that there is none. The handshake of
    /// TLS 1.3 ends before the host has decided on it.
    ///
    /// # Errors
    /// Fails as [`Self::dial`] does, or if the host does not respond to an HTTP/2 client.
    pub(super) async fn check(self) -> io::Result<()> {
        let mut stream = self.dial().await?.into_inner();
        stream.write_all(PREFACE).await?;
        stream.read_u8().await.map(drop)
    }
}

fn config(args: &ConnectionArgs) -> Result<ClientConfig, Failure> {
    let mut config = client_config(args.ca_file.as_deref())?;
    if let (Some(certificate), Some(key)) = (&args.cert_file, &args.key_file) {
        let identity = identity(certificate, key)?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
    }
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Reads a certificate and its key.
fn identity(certificate: &Path, key: &Path) -> Result<CertifiedKey, Failure> {
    let chain = certificates(&read(certificate)?, &certificate.display().to_string())?;
    let private_key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| format!("{} contains no private key in PEM", key.display()))?;
    CertifiedKey::from_der(chain, private_key, &ring::default_provider()).map_err(|error| {
        let file = certificate.display();
        format!("the certificate in {file} cannot be used with the key: {error}").into()
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = small_file::read(path);
    file.map_err(|error| {
        let cause = os_error::describe(&error);
        format!("cannot read {}: {cause}", path.display()).into()
    })
}
