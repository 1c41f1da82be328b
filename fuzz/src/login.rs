//! Those who may log in where login messages are made up, and the only ones who may come out as let in.

use std::{collections::BTreeMap, sync::Arc};

use varve_broker::security::{
    Secret,
    sasl::{
        ClaimRules, Credentials, JwtRules, OauthValidator, Surroundings, TokenRules, UnsecuredRules, Users, jwks::Jwks,
        scram,
    },
};
use varve_metadata::model::{DelegationToken, Principal, ScramCredential, ScramMechanism};

/// The one user of every mechanism.
pub const USER: &str = "alice";
/// The user's password.
pub const PASSWORD: &str = "alice-secret";
/// What SCRAM stores instead: a hash of the password that nobody has to compute.
pub const SALTED_PASSWORD: [u8; 32] = [3; 32];
/// Salt and rounds of that hash.
pub const SALT: [u8; 8] = [5; 8];
/// The same, in numbers.
pub const ROUNDS: u32 = 4096;
/// The broker's part of every nonce.
pub const NONCE: &str = "ours";
/// Seed of the key that signs tokens.
pub const TOKEN_KEY: [u8; 32] = [7; 32];
/// When all of this happens, in milliseconds since 1970.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// The public half of [`TOKEN_KEY`], as an identity provider publishes it.
const PUBLISHED: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","alg":"EdDSA",
    "x":"6kpsY-KcUgq-9VB7Ey7F-ZVHdq6-vnuSQh7qaRRG0iw"}]}"#;

/// The users of a listener. Its tokens are signed, or are not.
///
/// # Panics
/// Never: the keys are written above.
pub fn users(signed: bool) -> Users {
    let claims = ClaimRules {
        subject: "sub".into(),
        scope: "scope".into(),
        required_scopes: Default::default(),
        clock_skew_ms: 30_000,
    };
    let rules = match signed {
        true => TokenRules::Signed(JwtRules {
            keys: Arc::new(Jwks::of(serde_json::from_str(PUBLISHED).expect("a set of keys"))),
            audiences: ["kafka".to_owned()].into(),
            issuer: None,
            claims,
        }),
        false => TokenRules::Unsecured(UnsecuredRules { claims }),
    };
    let plain = BTreeMap::from([(USER.to_owned(), Secret::new(PASSWORD))]);
    Users { plain, oauth: Some(OauthValidator(Arc::new(rules))) }
}

/// What the cluster knows: the user, and a delegation token of the same name and password.
#[derive(Debug)]
pub struct Known;

impl Credentials for Known {
    fn scram(&self, mechanism: ScramMechanism, user: &str) -> Option<ScramCredential> {
        (user == USER).then(|| scram::from_salted(mechanism, &SALTED_PASSWORD, SALT.to_vec(), ROUNDS))
    }

    fn delegation_token(&self, mechanism: ScramMechanism, id: &str) -> Option<(DelegationToken, ScramCredential)> {
        let owner = Principal::user(USER);
        let token = DelegationToken {
            id: id.to_owned(),
            requester: owner.clone(),
            owner,
            renewers: Vec::new(),
            issued_ms: NOW_MS,
            expires_ms: NOW_MS,
            max_ms: NOW_MS,
        };
        Some((token, self.scram(mechanism, id)?))
    }
}

/// The world around a login.
pub fn around() -> Surroundings<'static> {
    Surroundings { now_ms: NOW_MS, nonce: &|| NONCE.to_owned(), credentials: &Known }
}
