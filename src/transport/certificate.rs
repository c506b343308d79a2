use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::access::CallerName;

/// Name of a certificate's holder: the first URI of the alternative names, which SPIFFE uses;
/// otherwise the first DNS name; otherwise the common name of the subject. `None` if the
/// certificate has none of them.
pub(super) fn name(certificate: &CertificateDer<'_>) -> Option<CallerName> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.map_or(&[][..], |names| &names.value.general_names);
    let uri = alternative.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let dns = alternative.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) => Some(*dns),
        _ => None,
    });
    let common = || {
        let name = certificate.subject().iter_common_name().next()?;
        std::str::from_utf8(name.as_slice()).ok()
    };
    uri.or(dns)
        .or_else(common)
        .and_then(CallerName::from_certificate_name)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn name_of(names: &[SanType], subject: &[(DnType, &str)]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in subject {
            params.distinguished_name.push(kind.clone(), *text);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        name(certificate.der()).map(|name| name.to_string())
    }

    #[test]
    fn prefers_the_uri_then_the_dns_name_then_the_common_name() {
        let uri = SanType::URI("spiffe://example.org/ns/a/sa/agent".try_into().unwrap());
        let dns = SanType::DnsName("agent.example.org".try_into().unwrap());
        let subject = [
            (DnType::OrganizationName, "Example"),
            (DnType::CommonName, "agent"),
        ];
        let of = |names: &[SanType]| name_of(names, &subject).unwrap();
        let both = [dns.clone(), uri.clone()];
        assert_eq!(of(&both), "spiffe://example.org/ns/a/sa/agent");
        assert_eq!(of(&[dns]), "agent.example.org");
        assert_eq!(of(&[]), "agent");
        let long = "o".repeat(200);
        let subject = [
            (DnType::OrganizationName, &*long),
            (DnType::CommonName, "a\"b c"),
        ];
        assert_eq!(name_of(&[], &subject).unwrap(), "a_b_c");
        assert_eq!(name_of(&[], &subject[..1]), None);
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_name() {
        let params = CertificateParams::new(["agent.example.org".to_owned()]).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let whole = certificate.der().to_vec();
        assert!(name(&whole.clone().into()).is_some());
        for end in 0..whole.len() {
            assert_eq!(name(&whole[..end].into()), None);
        }
    }
}
