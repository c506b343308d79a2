//! Whom this program trusts when it connects to others: the public authorities, which
//! are compiled in because images without certificates are common, and those of a file.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// A file that names no authority.
#[derive(Debug, thiserror::Error)]
#[error("{} holds no usable certificates: {why}", file.display())]
pub struct BadAuthorities {
    file: PathBuf,
    why: String,
}

/// TLS that trusts the public authorities, and those of a file in PEM if there is one.
pub fn tls_trusting(file: Option<&Path>) -> Result<ClientConfig, BadAuthorities> {
    let bad = |why: &dyn fmt::Display| BadAuthorities {
        file: file.map(ToOwned::to_owned).unwrap_or_default(),
        why: why.to_string(),
    };
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(file) = file {
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| bad(&error))?;
        let before = roots.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| bad(&error))?;
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        if roots.len() == before {
            return Err(bad(&"there is none in PEM"));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
