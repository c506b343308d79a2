use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::certificate;
use crate::{
    access::Name,
    watched::{self, ReloadError, Watched, Watcher},
};

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// The files that TLS is made of, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and its root.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// Who signs the certificates that callers must have; None asks them for none.
    pub client_ca: Option<PathBuf>,
}

/// TLS as the files say at the time that a connection is made.
#[derive(Clone, Debug)]
pub struct Tls(Watched<ServerConfig>);

impl Tls {
    /// Reads the files.
    pub fn read(files: TlsFiles) -> Result<(Self, Watcher<ServerConfig>), ReloadError> {
        let mut paths = vec![files.certificate, files.key];
        paths.extend(files.client_ca);
        let (config, watcher) = watched::read("TLS_CERT_FILE", paths, config)?;
        Ok((Self(config), watcher))
    }

    /// Shakes hands. With what the certificate calls the peer, if it had to show one that
    /// has a name.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Name>)> {
        let handshake = TlsAcceptor::from(self.0.current()).accept(stream);
        let stream = timeout(HANDSHAKE_LIMIT, handshake).await??;
        let name = match stream.get_ref().1.peer_certificates() {
            // The authority lets it in, whatever it is called.
            Some([certificate, ..]) => certificate::name(certificate),
            _ => None,
        };
        Ok((stream, name))
    }
}

/// What is made of a certificate, its key and, if there is one, the clients' authority.
fn config(files: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let [certificate, key, client_ca @ ..] = files else {
        return Err("two files are needed".to_owned());
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        [] => builder.with_no_client_auth(),
        [ca, ..] => builder.with_client_cert_verifier(verifier(ca)?),
    };
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "TLS_KEY_FILE has no private key in PEM".to_owned())?;
    let mut config = builder
        .with_single_cert(certificates(certificate, "TLS_CERT_FILE")?, key)
        .map_err(|error| format!("the certificate cannot be used with the key: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if !client_ca.is_empty() {
        // A session that is resumed does not show its certificate again, which may have
        // expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

fn verifier(ca: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("TLS_CLIENT_CA_FILE: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "TLS_CLIENT_CA_FILE")? {
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| wrong(&error))
}

fn certificates(pem: &[u8], setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{setting} has no certificate in PEM")),
    }
}
