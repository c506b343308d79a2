//! Certificate authorities of the tests, and clients with their certificates.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use test_support::sidecar::Sidecar;

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Period in which a certificate is valid.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Past,
    Future,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server certificate.
    pub(crate) fn server(&self) -> Identity {
        let name = SanType::DnsName("localhost".try_into().unwrap());
        self.issue(name, ExtendedKeyUsagePurpose::ServerAuth, Validity::Now)
    }

    /// A client certificate with a URI as its name.
    pub(crate) fn client(&self, uri: &str, when: Validity) -> Identity {
        let name = SanType::URI(uri.try_into().unwrap());
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth, when)
    }

    fn issue(&self, name: SanType, usage: ExtendedKeyUsagePurpose, when: Validity) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![usage];
        let (from, to) = match when {
            Validity::Now => (2000, 4000),
            Validity::Past => (2000, 2001),
            Validity::Future => (3999, 4000),
        };
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The TLS files of a sidecar in a temporary folder.
pub(crate) struct TlsFolder {
    pub(crate) folder: tempfile::TempDir,
}

impl TlsFolder {
    pub(crate) fn of(server: &Identity) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self { folder };
        files.write(server);
        files
    }

    pub(crate) fn write(&self, server: &Identity) {
        fs::write(self.path("tls.key"), &server.key).unwrap();
        fs::write(self.path("tls.crt"), &server.certificate).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn settings(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("TLS_CERT_FILE", text(&self.path("tls.crt"))),
            ("TLS_KEY_FILE", text(&self.path("tls.key"))),
        ]
    }
}

/// A client that trusts an authority and may have a certificate.
#[derive(Clone)]
pub(crate) struct Client(TlsConnector);

impl Client {
    pub(crate) fn new(trusts: &Authority, identity: Option<&Identity>) -> Self {
        Self::with_protocol(trusts, identity, b"http/1.1")
    }

    fn with_protocol(trusts: &Authority, identity: Option<&Identity>, protocol: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(trusts.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
                let chain = vec![chain.unwrap()];
                builder.with_client_auth_cert(chain, key.unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }

    pub(crate) async fn connect(&self, sidecar: &Sidecar) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(sidecar.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        self.0.connect(name, stream).await
    }

    /// A gRPC channel that connects again when its connection is closed.
    pub(crate) fn channel(
        trusts: &Authority,
        identity: Option<&Identity>,
        sidecar: &Sidecar,
    ) -> Channel {
        let client = Self::with_protocol(trusts, identity, b"h2");
        let address = sidecar.address;
        let connect = move |_| {
            let client = client.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = "localhost".try_into().unwrap();
                client.0.connect(name, stream).await.map(TokioIo::new)
            }
        };
        let endpoint = Endpoint::from_static("http://localhost");
        endpoint.connect_with_connector_lazy(tower::service_fn(connect))
    }
}
