//! Certificate authorities: those that come with the program, or a file of the user's.
//!
//! Networks that look into TLS sign with an authority of their own, which only such a file names.

use std::path::Path;

use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::HubError;

/// The certificates in a PEM file. What else is in it is passed over.
pub(crate) fn read(path: &Path) -> Result<RootCerts, HubError> {
    let pem = std::fs::read(path).map_err(|source| HubError::Read {
        path: path.to_owned(),
        source,
    })?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(HubError::NoCertificates {
            path: path.to_owned(),
        });
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert!(matches!(read(&path), Err(HubError::Read { .. })));
        std::fs::write(&path, "no PEM").unwrap();
        assert!(matches!(read(&path), Err(HubError::NoCertificates { .. })));
        let pem = "# a comment\n-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, pem.repeat(2)).unwrap();
        match read(&path) {
            Ok(RootCerts::Specific(certificates)) => assert_eq!(certificates.len(), 2),
            other => panic!("{other:?}"),
        }
    }
}
