//! PEM as Kafka takes it: in files, and in settings, where continuation lines leave a whole certificate on one line.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::Secret;

/// One block: what its dashes call it, and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) label: String,
    pub(super) der: Vec<u8>,
}

/// What is wrong with PEM text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Dashes without an end, or something else than base64 between them.
    #[error("a PEM block cannot be read")]
    Malformed,
    /// A private key in OpenSSL's own encrypted form (`Proc-Type: 4,ENCRYPTED`).
    #[error("the private key is encrypted in OpenSSL's old form: convert it with `openssl pkcs8 -topk8 -in KEY`")]
    OldEncryption,
}

/// Every block of `text`; what stands around them is comment.
///
/// # Errors
/// [`PemError`].
pub(super) fn blocks(text: &Secret) -> Result<Vec<Block>, PemError> {
    const BEGIN: &str = "-----BEGIN ";
    let mut blocks = Vec::new();
    let mut rest = text.reveal();
    while let Some(at) = rest.find(BEGIN) {
        let (label, behind) = rest[at + BEGIN.len()..].split_once("-----").ok_or(PemError::Malformed)?;
        let end = format!("-----END {label}-----");
        let (body, behind) = behind.split_once(&end).ok_or(PemError::Malformed)?;
        if body.contains("Proc-Type:") {
            return Err(PemError::OldEncryption);
        }
        let body: String = body.chars().filter(|character| !character.is_whitespace()).collect();
        let der = STANDARD.decode(body).map_err(|_| PemError::Malformed)?;
        blocks.push(Block { label: label.to_owned(), der });
        rest = behind;
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Result<Vec<(String, Vec<u8>)>, PemError> {
        Ok(blocks(&Secret::new(text))?.into_iter().map(|block| (block.label, block.der)).collect())
    }

    #[test]
    fn blocks_are_read_from_lines_and_from_one_line() {
        let lines = "Bag Attributes\n-----BEGIN CERTIFICATE-----\nAAEC\r\nAwQF\n-----END CERTIFICATE-----\n\
                     -----BEGIN PRIVATE KEY-----\nBg==\n-----END PRIVATE KEY-----\n";
        let expected = vec![("CERTIFICATE".to_owned(), vec![0, 1, 2, 3, 4, 5]), ("PRIVATE KEY".to_owned(), vec![6])];
        assert_eq!(labels(lines).unwrap(), expected);
        assert_eq!(labels(&lines.replace(['\n', '\r'], " ")).unwrap(), expected);
        assert_eq!(labels("nothing").unwrap(), []);
    }

    #[test]
    fn what_is_cut_or_no_base64_is_refused() {
        for text in [
            "-----BEGIN CERTIFICATE",
            "-----BEGIN CERTIFICATE-----\nAAEC",
            "-----BEGIN A-----\n!!\n-----END A-----",
            "-----BEGIN A-----\nAAEC\n-----END B-----",
        ] {
            assert_eq!(labels(text), Err(PemError::Malformed), "{text}");
        }
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAEC\n-----END RSA PRIVATE KEY-----";
        assert_eq!(labels(old), Err(PemError::OldEncryption));
    }
}
