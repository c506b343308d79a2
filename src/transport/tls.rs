use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::certificate;
use crate::{
    access::CallerName,
    reload::{self, FileWatcher, ReloadError, Reloaded},
};

/// Time limit of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Paths of the TLS files, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities that sign the certificates of callers. `None` requests no certificate
    /// from callers.
    pub client_ca: Option<PathBuf>,
}

/// TLS settings of new connections, which follow the contents of the files.
#[derive(Clone, Debug)]
pub struct Tls(Reloaded<rustls::ServerConfig>);

impl Tls {
    /// Reads the files. The watcher reads them again when they change.
    ///
    /// # Errors
    /// Fails if a file cannot be read, or its contents cannot be used.
    pub fn read(files: TlsFiles) -> Result<(Self, FileWatcher<rustls::ServerConfig>), ReloadError> {
        let mut paths = vec![files.certificate, files.key];
        paths.extend(files.client_ca);
        let (config, watcher) = reload::load("TLS_CERT_FILE", paths, config)?;
        Ok((Self(config), watcher))
    }

    /// Performs the handshake. The result has the name in the peer's certificate, if the peer
    /// had to present one and it has a name.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<CallerName>)> {
        let handshake = TlsAcceptor::from(self.0.current()).accept(stream);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        let name = match stream.get_ref().1.peer_certificates() {
            // The signature authenticates the peer, even if the certificate contains no name.
            Some([certificate, ..]) => certificate::name(certificate),
            _ => None,
        };
        Ok((stream, name))
    }
}

/// Creates the settings from the contents of the certificate, the key and, if configured, the
/// authorities of the callers.
fn config(files: &[Vec<u8>]) -> Result<rustls::ServerConfig, String> {
    let [certificate, key, client_ca @ ..] = files else {
        return Err("a certificate and a key are required".to_owned());
    };
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        [] => builder.with_no_client_auth(),
        [ca, ..] => builder.with_client_cert_verifier(verifier(ca)?),
    };
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "TLS_KEY_FILE contains no private key in PEM".to_owned())?;
    let mut config = builder
        .with_single_cert(certificates(certificate, "the file")?, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                "the certificate does not match the key in TLS_KEY_FILE".to_owned()
            }
            error => format!("the certificate cannot be used: {error}"),
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if !client_ca.is_empty() {
        // A resumed session does not present its certificate again, which may have expired
        // meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn verifier(ca: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let invalid = |error: &dyn std::fmt::Display| format!("TLS_CLIENT_CA_FILE: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "TLS_CLIENT_CA_FILE")? {
        roots.add(certificate).map_err(|error| invalid(&error))?;
    }
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| invalid(&error))
}

/// Parses certificates in PEM. `from` names where they are from in the error.
///
/// # Errors
/// Fails if there is none, or one cannot be parsed.
pub(crate) fn certificates(pem: &[u8], from: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{from} contains no certificate in PEM")),
    }
}
