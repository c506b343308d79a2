//! Certificate authorities that this program trusts when it connects to a server: the public
//! ones, which are compiled in because many container images contain no certificates, and
//! those of a configured file.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem, pem::PemObject as _},
};

use crate::{os_error, small_file};

/// A file that contains no usable CA certificates.
#[derive(Debug, thiserror::Error)]
#[error("cannot load CA certificates from {}: {cause}", file.display())]
pub struct CaFileError {
    file: PathBuf,
    cause: String,
}

/// Builds a TLS client configuration that trusts the public authorities and, if `file` is
/// set, the CA certificates in that PEM file.
///
/// # Errors
/// Returns an error if the file cannot be read or contains no valid certificate.
pub fn client_config(file: Option<&Path>) -> Result<ClientConfig, CaFileError> {
    let failed = |cause: &dyn fmt::Display| CaFileError {
        file: file.map(ToOwned::to_owned).unwrap_or_default(),
        cause: cause.to_string(),
    };
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(file) = file {
        let contents = small_file::read_within_limit(file)
            .map_err(|error| failed(&os_error::describe(&error)))?;
        let public = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&contents) {
            let certificate = certificate.map_err(|error| failed(&describe(&error)))?;
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
        if roots.len() == public {
            return Err(failed(&"the file contains no certificate in PEM"));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Describes an error of the PEM parser. Its own text quotes parts of the file in Debug form.
fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => os_error::describe(error),
        _ => "the file is not valid PEM".to_owned(),
    }
}
