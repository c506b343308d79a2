use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::access::Name;

/// An attribute type of a distinguished name, in DER: commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// What a certificate calls its holder: the URI of its alternative names, as SPIFFE has
/// it, or else its DNS name, or else the subject's common name.
pub(super) fn name(certificate: &CertificateDer<'_>) -> Option<Name> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    let given = parsed
        .valid_uri_names()
        .next()
        .or_else(|| parsed.valid_dns_names().next())
        .or_else(|| common_name(parsed.subject()));
    given.and_then(Name::resembling)
}

/// The common name of a subject: a sequence, without its own head, of sets of pairs of a
/// type and a text.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    while let Some((SET, mut set, rest)) = element(subject) {
        while let Some((SEQUENCE, pair, others)) = element(set) {
            let (OBJECT_IDENTIFIER, kind, value) = element(pair)? else {
                return None;
            };
            if kind == COMMON_NAME {
                return std::str::from_utf8(element(value)?.1).ok();
            }
            set = others;
        }
        subject = rest;
    }
    None
}

/// The first element of DER: its tag and contents, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => rest
            .split_first()
            .map(|(length, rest)| ((*length).into(), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u16::from_be_bytes(*length).into(), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
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
    fn the_most_telling_name_is_taken() {
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
    fn what_is_cut_short_has_no_name() {
        let whole = [SET, 9, SEQUENCE, 7, OBJECT_IDENTIFIER, 3, 0x55, 4, 3, 12, 1];
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None);
        }
        assert_eq!(common_name(&[SET, 0x84, 1, 1, 1, 1]), None);
    }
}
