//! Messages of those who have not said yet who they are: PLAIN, SCRAM, and tokens of OAUTHBEARER.
//!
//! Input: flags (1, 2: the mechanism's number; 4: tokens are unsigned) │ pieces, one for each message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_broker::security::sasl::{Mechanism, MechanismServer};
use varve_fuzz::{
    input::{flags, pieces},
    login,
    memory::asked_by,
};
use varve_metadata::model::Principal;

/// A claim set of one-digit numbers takes this much: a tree node for each.
const PER_BYTE: usize = 256;
const BASE: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let (flag, messages) = flags(bytes);
    let (mechanism, unsigned) = (Mechanism::ALL[usize::from(flag & 3)], flag & 4 > 0);
    let users = login::users(!unsigned);
    let (_, asked) = asked_by(|| {
        let mut server = MechanismServer::new(mechanism);
        for message in pieces(messages) {
            let Ok(challenge) = server.evaluate(message.bytes, &users, &login::around()) else { return };
            let Some(who) = challenge.authenticated else { continue };
            // Unsigned tokens are anybody's word.
            let is_claimed = mechanism == Mechanism::OauthBearer && unsigned;
            assert!(is_claimed || who.principal == Principal::user(login::USER), "{who:?} was let in by {mechanism:?}");
            assert!(who.expires_ms.is_none_or(|end| end + 30_000 > login::NOW_MS), "{who:?} is over");
            return;
        }
    });
    assert!(asked <= BASE + PER_BYTE * bytes.len(), "{} bytes asked for {asked}", bytes.len());
});
