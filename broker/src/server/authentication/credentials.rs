//! What the cluster knows of those who log in: users of SCRAM and delegation tokens, from the metadata's image.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use varve_metadata::{
    image::ClusterImage,
    model::{DelegationToken, ScramCredential, ScramMechanism},
};

use crate::security::{
    Secret,
    sasl::{Credentials, scram},
};

/// The image, and the secret that passwords of tokens are derived from.
pub(in crate::server) struct ClusterCredentials<'a> {
    pub(in crate::server) image: &'a ClusterImage,
    pub(in crate::server) token_secret: Option<&'a Secret>,
}

impl Credentials for ClusterCredentials<'_> {
    fn scram(&self, mechanism: ScramMechanism, user: &str) -> Option<ScramCredential> {
        self.image.scram_credential(mechanism, user).cloned()
    }

    fn delegation_token(&self, mechanism: ScramMechanism, id: &str) -> Option<(DelegationToken, ScramCredential)> {
        let token = self.image.delegation_tokens().get(id)?;
        let secret = self.token_secret?;
        let password = Secret::new(STANDARD.encode(token_password(secret, id)));
        // The same at every login, and not to be told from a random one by who lacks the secret.
        let salt = token_password(secret, &format!("salt of {id}"))[..16].to_vec();
        let credential = scram::credential(mechanism, &password, salt, ScramMechanism::MIN_ITERATIONS);
        Some((token.clone(), credential))
    }
}

/// The password of the token `id` (KIP-48): its holder sends it as base64.
pub(in crate::server) fn token_password(secret: &Secret, id: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA512, secret.reveal().as_bytes());
    hmac::sign(&key, id.as_bytes()).as_ref().to_vec()
}
