//! Numbers used once.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};

/// Text that nobody can foresee.
pub(crate) fn nonce() -> String {
    let mut bytes = [0; 24];
    // The system's source does not fail once it has begun; were it to, the exchange must not go on.
    SystemRandom::new().fill(&mut bytes).expect("the system gives random numbers");
    URL_SAFE_NO_PAD.encode(bytes)
}
