//! Whom a request comes from.

use std::{fmt, sync::Arc};

/// An authenticated identity, as ACLs and quotas name it. Cheap to copy.
///
/// Its text is Kafka's: `User:alice`. The name may hold anything, colons and commas of a certificate's subject included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal {
    text: Arc<str>,
    /// Where the first colon stands.
    colon: usize,
}

impl Principal {
    /// The kind of every principal that Kafka itself makes.
    pub const USER: &'static str = "User";

    /// The user called `name`.
    pub fn user(name: &str) -> Principal {
        Principal { text: format!("{}:{name}", Principal::USER).into(), colon: Principal::USER.len() }
    }

    /// Who is on a connection without authentication: `User:ANONYMOUS`.
    pub fn anonymous() -> Principal {
        Principal::user("ANONYMOUS")
    }

    /// `None` if `text` is not `KIND:NAME` with neither part empty.
    pub fn parse(text: &str) -> Option<Principal> {
        let (kind, _) = text.split_once(':').filter(|(kind, name)| !kind.is_empty() && !name.is_empty())?;
        Some(Principal { text: text.into(), colon: kind.len() })
    }

    /// The whole text, as ACLs name it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the colon.
    pub fn kind(&self) -> &str {
        &self.text[..self.colon]
    }

    /// What stands behind the colon.
    pub fn name(&self) -> &str {
        &self.text[self.colon + 1..]
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_reads_back_from_its_text() {
        let subject = Principal::parse("User:CN=broker,OU=a:b").unwrap();
        assert_eq!((subject.kind(), subject.name()), ("User", "CN=broker,OU=a:b"));
        assert_eq!(Principal::parse(&subject.to_string()), Some(subject));
        assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
    }

    #[test]
    fn a_principal_without_kind_or_name_is_none() {
        for text in ["", "alice", ":alice", "User:"] {
            assert_eq!(Principal::parse(text), None, "{text}");
        }
    }
}
