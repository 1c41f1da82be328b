//! Delegation tokens (KIP-48): passwords of a limited life, which one user has made to act for another.

use serde::{Deserialize, Serialize};

use super::Principal;

/// What the cluster knows of a token. The password that belongs to it is not here: it is derived from the id and the secret
/// that brokers are configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegationToken {
    /// Its name, and the user name at a login.
    pub id: String,
    /// For whom it stands.
    pub owner: Principal,
    /// Who asked for it.
    pub requester: Principal,
    /// Who besides its owner may renew and end it.
    pub renewers: Vec<Principal>,
    /// When it was made, in milliseconds since 1970.
    pub issued_ms: i64,
    /// When it ends unless renewed.
    pub expires_ms: i64,
    /// When it ends in any case.
    pub max_ms: i64,
}

impl DelegationToken {
    /// Whether it is over at `now_ms`.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.max_ms < now_ms || self.expires_ms < now_ms
    }

    /// Whether `principal` may renew and end it.
    pub fn may_be_renewed_by(&self, principal: &Principal) -> bool {
        self.owner == *principal || self.renewers.contains(principal)
    }
}

/// As it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DelegationTokenRecord {
    owner: String,
    requester: String,
    renewers: Vec<String>,
    issued_ms: i64,
    expires_ms: i64,
    max_ms: i64,
}

impl DelegationTokenRecord {
    pub(crate) fn of(token: &DelegationToken) -> DelegationTokenRecord {
        DelegationTokenRecord {
            owner: token.owner.to_string(),
            requester: token.requester.to_string(),
            renewers: token.renewers.iter().map(Principal::to_string).collect(),
            issued_ms: token.issued_ms,
            expires_ms: token.expires_ms,
            max_ms: token.max_ms,
        }
    }

    /// `None` if a principal is none.
    pub(crate) fn into_token(self, id: String) -> Option<DelegationToken> {
        Some(DelegationToken {
            id,
            owner: Principal::parse(&self.owner)?,
            requester: Principal::parse(&self.requester)?,
            renewers: self.renewers.iter().map(|text| Principal::parse(text)).collect::<Option<_>>()?,
            issued_ms: self.issued_ms,
            expires_ms: self.expires_ms,
            max_ms: self.max_ms,
        })
    }
}
