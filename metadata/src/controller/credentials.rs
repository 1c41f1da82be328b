//! Changes of what users log in with: SCRAM credentials (KIP-554) and delegation tokens (KIP-48).

use super::Decision;
use crate::{
    image::{
        ClusterImage,
        record::{self, Key},
    },
    model::{DelegationToken, DelegationTokenRecord, ScramCredential, ScramMechanism},
};

/// The change of one user's credential in one mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramChange {
    /// Whose.
    pub user: String,
    /// In which mechanism.
    pub mechanism: ScramMechanism,
    /// The new credential; `None` takes the old one away.
    pub credential: Option<ScramCredential>,
}

/// The change of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// A new one.
    Create(DelegationToken),
    /// Another end, in milliseconds since 1970.
    Expire {
        /// The token.
        id: String,
        /// Its end.
        at_ms: i64,
    },
    /// No such token any more.
    Remove {
        /// The token.
        id: String,
    },
}

/// Changes credentials, each user and mechanism named once; `false` where there is nothing to take away.
pub fn alter_scram_credentials(image: &ClusterImage, changes: &[ScramChange]) -> (Vec<bool>, Decision) {
    let mut decision = Decision::default();
    let results = changes.iter().map(|change| {
        let key = Key::Scram(change.mechanism, change.user.clone());
        match &change.credential {
            Some(credential) => decision.put(&key, record::encode(credential)),
            None if image.scram_credential(change.mechanism, &change.user).is_some() => decision.delete(&key),
            None => return false,
        }
        decision.rewrites.push(key);
        true
    });
    (results.collect(), decision)
}

/// Changes tokens, each named once; `false` for one that does not exist.
pub fn alter_delegation_tokens(image: &ClusterImage, changes: &[TokenChange]) -> (Vec<bool>, Decision) {
    let mut decision = Decision::default();
    let results = changes.iter().map(|change| {
        let (id, token) = match change {
            TokenChange::Create(token) => (&token.id, Some(token.clone())),
            TokenChange::Expire { id, at_ms } => match image.delegation_tokens().get(id) {
                Some(token) => (id, Some(DelegationToken { expires_ms: *at_ms, ..token.clone() })),
                None => return false,
            },
            TokenChange::Remove { id } if image.delegation_tokens().contains_key(id) => (id, None),
            TokenChange::Remove { .. } => return false,
        };
        let key = Key::DelegationToken(id.clone());
        match token {
            Some(token) => decision.put(&key, record::encode(DelegationTokenRecord::of(&token))),
            None => decision.delete(&key),
        }
        decision.rewrites.push(key);
        true
    });
    (results.collect(), decision)
}
