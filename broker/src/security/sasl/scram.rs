//! SCRAM (RFC 5802, RFC 7677), the broker's side, and the computation behind it.
//!
//! ```text
//!  client                                              broker
//!  n,,n=alice,r=<client nonce>                    ─►
//!                                                 ◄─   r=<client nonce><ours>,s=<salt>,i=<rounds>
//!  c=biws,r=<both>,p=<proof of the client key>    ─►   H(client key) = stored key?
//!                                                 ◄─   v=<signature by the server key>
//! ```

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;
use varve_metadata::model::{Principal, ScramCredential, ScramMechanism};

use super::{Authenticated, Challenge, Rejection, Surroundings, other_user};
use crate::security::Secret;

/// The algorithms of one mechanism.
#[derive(Clone, Copy)]
struct Algorithms {
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

/// What a password becomes before anything is derived from it. `iterations` of 0 count as 1.
pub(super) fn salted_password(mechanism: ScramMechanism, password: &Secret, salt: &[u8], iterations: u32) -> Vec<u8> {
    let Algorithms { digest, pbkdf2: algorithm, .. } = algorithms(mechanism);
    let mut salted = vec![0; digest.output_len()];
    let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(algorithm, rounds, salt, password.reveal().as_bytes(), &mut salted);
    salted
}

/// What a client shows that knows `salted`, for an exchange of which `signed` was said so far.
pub(super) fn proof(mechanism: ScramMechanism, salted: &[u8], signed: &[u8]) -> Vec<u8> {
    let client_key = sign(mechanism, salted, b"Client Key");
    let stored_key = digest::digest(algorithms(mechanism).digest, &client_key);
    let signature = sign(mechanism, stored_key.as_ref(), signed);
    client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect()
}

/// What the other side shows that knows of the same password.
pub(super) fn server_signature(mechanism: ScramMechanism, salted: &[u8], signed: &[u8]) -> Vec<u8> {
    sign(mechanism, &sign(mechanism, salted, b"Server Key"), signed)
}

fn algorithms(mechanism: ScramMechanism) -> Algorithms {
    match mechanism {
        ScramMechanism::Sha256 => {
            Algorithms { digest: &digest::SHA256, hmac: hmac::HMAC_SHA256, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256 }
        }
        ScramMechanism::Sha512 => {
            Algorithms { digest: &digest::SHA512, hmac: hmac::HMAC_SHA512, pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512 }
        }
    }
}

fn sign(mechanism: ScramMechanism, key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithms(mechanism).hmac, key), message).as_ref().to_vec()
}

/// What is kept of `password`. `iterations` of 0 count as 1.
pub fn credential(mechanism: ScramMechanism, password: &Secret, salt: Vec<u8>, iterations: u32) -> ScramCredential {
    let salted = salted_password(mechanism, password, &salt, iterations);
    from_salted(mechanism, &salted, salt, iterations)
}

/// What is kept of a password of which only the salted hash is known, as clients send it (KIP-554).
pub fn from_salted(
    mechanism: ScramMechanism,
    salted_password: &[u8],
    salt: Vec<u8>,
    iterations: u32,
) -> ScramCredential {
    let client_key = sign(mechanism, salted_password, b"Client Key");
    let stored_key = digest::digest(algorithms(mechanism).digest, &client_key).as_ref().to_vec();
    let server_key = sign(mechanism, salted_password, b"Server Key");
    ScramCredential { salt, stored_key, server_key, iterations }
}

/// One login.
#[derive(Debug)]
pub struct ScramServer {
    mechanism: ScramMechanism,
    state: State,
}

#[derive(Debug)]
enum State {
    First,
    Final { first_bare: String, our_first: String, nonce: String, credential: ScramCredential, who: Authenticated },
    Over,
}

impl ScramServer {
    /// Waits for the client's first message.
    pub fn new(mechanism: ScramMechanism) -> ScramServer {
        ScramServer { mechanism, state: State::First }
    }

    pub(super) fn evaluate(&mut self, message: &[u8], around: &Surroundings<'_>) -> Result<Challenge, Rejection> {
        let message = std::str::from_utf8(message).map_err(|_| Rejection::Kept("a message of SCRAM is text"))?;
        match std::mem::replace(&mut self.state, State::Over) {
            State::First => self.first(message, around),
            State::Final { first_bare, our_first, nonce, credential, who } => {
                let (without_proof, proof) = parse_final(message, &nonce)?;
                let signed = format!("{first_bare},{our_first},{without_proof}");
                self.finish(&signed, &proof, &credential, who)
            }
            State::Over => Err(Rejection::Kept("the exchange is over")),
        }
    }

    fn first(&mut self, message: &str, around: &Surroundings<'_>) -> Result<Challenge, Rejection> {
        let first = FirstMessage::parse(message).ok_or(Rejection::Kept("no first message of SCRAM"))?;
        let (credential, who) = match first.by_token {
            true => {
                let (token, credential) = around
                    .credentials
                    .delegation_token(self.mechanism, &first.user)
                    .filter(|(token, _)| !token.is_expired(around.now_ms))
                    .ok_or(Rejection::Kept("there is no such delegation token"))?;
                let expires_ms = Some(token.expires_ms);
                (credential, Authenticated { principal: token.owner, by_token: true, expires_ms })
            }
            false => {
                let credential = around.credentials.scram(self.mechanism, &first.user);
                let principal = Principal::user(&first.user);
                let credential = credential.ok_or(Rejection::Kept("there is no such user"))?;
                (credential, Authenticated { principal, by_token: false, expires_ms: None })
            }
        };
        if !first.authorization.is_empty() && first.authorization != first.user {
            return Err(other_user());
        }
        if credential.iterations < ScramMechanism::MIN_ITERATIONS {
            return Err(Rejection::Kept("the credential has too few iterations"));
        }
        let nonce = format!("{}{}", first.nonce, (around.nonce)());
        let salt = STANDARD.encode(&credential.salt);
        let our_first = format!("r={nonce},s={salt},i={}", credential.iterations);
        let message = our_first.clone().into_bytes();
        self.state = State::Final { first_bare: first.bare.to_owned(), our_first, nonce, credential, who };
        Ok(Challenge { message, authenticated: None })
    }

    fn finish(
        &self,
        signed: &str,
        proof: &[u8],
        credential: &ScramCredential,
        who: Authenticated,
    ) -> Result<Challenge, Rejection> {
        let client_signature = sign(self.mechanism, &credential.stored_key, signed.as_bytes());
        if proof.len() != client_signature.len() {
            return Err(Rejection::Kept("the proof has another length"));
        }
        let client_key: Vec<u8> = proof.iter().zip(&client_signature).map(|(proof, own)| proof ^ own).collect();
        let stored_key = digest::digest(algorithms(self.mechanism).digest, &client_key);
        if !bool::from(stored_key.as_ref().ct_eq(&credential.stored_key)) {
            return Err(Rejection::Kept("the password is another one"));
        }
        let signature = sign(self.mechanism, &credential.server_key, signed.as_bytes());
        let message = format!("v={}", STANDARD.encode(signature)).into_bytes();
        Ok(Challenge { message, authenticated: Some(who) })
    }
}

/// `n,[a=authorization],n=user,r=nonce[,extensions]`
struct FirstMessage<'a> {
    authorization: String,
    user: String,
    nonce: &'a str,
    by_token: bool,
    /// Everything behind the header: a part of what is signed.
    bare: &'a str,
}

impl<'a> FirstMessage<'a> {
    fn parse(message: &'a str) -> Option<FirstMessage<'a>> {
        // No channel binding: Kafka's clients have none, and `p=` would be a wish that is not granted.
        let (authorization, bare) = message.strip_prefix("n,")?.split_once(',')?;
        let authorization = match authorization {
            "" => String::new(),
            named => unescape(named.strip_prefix("a=")?)?,
        };
        let mut fields = bare.split(',').peekable();
        fields.next_if(|field| field.starts_with("m="));
        let user = unescape(fields.next()?.strip_prefix("n=")?)?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        let printable = !nonce.is_empty() && nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        let mut by_token = false;
        for field in fields {
            let (name, value) = field.split_once('=')?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) || value.is_empty() {
                return None;
            }
            by_token |= name == "tokenauth" && value.eq_ignore_ascii_case("true");
        }
        printable.then_some(FirstMessage { authorization, user, nonce, by_token, bare })
    }
}

/// `c=…,r=nonce[,extensions],p=proof`: what comes before the proof, and the proof.
fn parse_final<'a>(message: &'a str, nonce: &str) -> Result<(&'a str, Vec<u8>), Rejection> {
    let malformed = Rejection::Kept("no final message of SCRAM");
    let (without_proof, proof) = message.rsplit_once(",p=").ok_or(malformed.clone())?;
    let (binding, rest) = without_proof.split_once(',').ok_or(malformed.clone())?;
    let binding = binding.strip_prefix("c=").ok_or(malformed.clone())?;
    STANDARD.decode(binding).map_err(|_| malformed.clone())?;
    let found = rest.strip_prefix("r=").ok_or(malformed.clone())?;
    if found.split(',').next() != Some(nonce) {
        return Err(Rejection::Kept("the final message has another nonce"));
    }
    Ok((without_proof, STANDARD.decode(proof).map_err(|_| malformed)?))
}

/// A user's name: `=2C` is a comma and `=3D` an equals sign, which do not stand for themselves.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('=') {
        out.push_str(before);
        let (sign, behind) = (behind.get(..2)?, behind.get(2..)?);
        out.push(match sign {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = behind;
    }
    out.push_str(rest);
    (!out.is_empty() && !out.contains('\0')).then_some(out)
}

#[cfg(test)]
mod tests {
    use varve_metadata::model::DelegationToken;

    use super::*;
    use crate::security::sasl::Credentials;

    /// Knows one user, and a token of the same name.
    struct Known(ScramCredential);

    impl Credentials for Known {
        fn scram(&self, _: ScramMechanism, user: &str) -> Option<ScramCredential> {
            (user == "user" || user == "a,b=c").then(|| self.0.clone())
        }

        fn delegation_token(&self, _: ScramMechanism, id: &str) -> Option<(DelegationToken, ScramCredential)> {
            let owner = Principal::user("owner");
            let (requester, renewers) = (owner.clone(), Vec::new());
            let (issued_ms, expires_ms, max_ms) = (0, 1000, 2000);
            let token = DelegationToken { id: id.into(), owner, requester, renewers, issued_ms, expires_ms, max_ms };
            (id == "user").then(|| (token, self.0.clone()))
        }
    }

    fn converse(
        mechanism: ScramMechanism,
        known: ScramCredential,
        nonce: &str,
        now_ms: i64,
        messages: &[&str],
    ) -> Result<(Vec<String>, Option<Authenticated>), Rejection> {
        let (credentials, nonce) = (Known(known), || nonce.to_owned());
        let around = Surroundings { now_ms, nonce: &nonce, credentials: &credentials };
        let mut server = ScramServer::new(mechanism);
        let (mut said, mut who) = (Vec::new(), None);
        for message in messages {
            let challenge = server.evaluate(message.as_bytes(), &around)?;
            said.push(String::from_utf8(challenge.message).unwrap());
            who = challenge.authenticated;
        }
        Ok((said, who))
    }

    /// RFC 7677, section 3.
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const OUR_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn pencil() -> ScramCredential {
        credential(ScramMechanism::Sha256, &Secret::new("pencil"), STANDARD.decode(SALT).unwrap(), 4096)
    }

    #[test]
    fn the_example_of_rfc_7677_gets_in() {
        let (said, who) = converse(ScramMechanism::Sha256, pencil(), OUR_NONCE, 0, &[FIRST, FINAL]).unwrap();
        assert_eq!(said[0], format!("r=rOprNGfwEbeRWgbNEkqO{OUR_NONCE},s={SALT},i=4096"));
        assert_eq!(said[1], "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let expected = Authenticated { principal: Principal::user("user"), by_token: false, expires_ms: None };
        assert_eq!(who, Some(expected));
    }

    fn proof(mechanism: ScramMechanism, password: &str, known: &ScramCredential, signed: &str) -> String {
        let salted = salted_password(mechanism, &Secret::new(password), &known.salt, known.iterations);
        STANDARD.encode(super::proof(mechanism, &salted, signed.as_bytes()))
    }

    fn login(first: &str, password: &str, now_ms: i64) -> Result<Option<Authenticated>, Rejection> {
        let known = credential(ScramMechanism::Sha512, &Secret::new("pencil"), b"salt".to_vec(), 4096);
        let ours = format!("r=abcxyz,s={},i=4096", STANDARD.encode(b"salt"));
        let bare = first.splitn(3, ',').nth(2).unwrap_or_default();
        let signed = format!("{bare},{ours},c=biws,r=abcxyz");
        let last = format!("c=biws,r=abcxyz,p={}", proof(ScramMechanism::Sha512, password, &known, &signed));
        converse(ScramMechanism::Sha512, known, "xyz", now_ms, &[first, &last]).map(|(_, who)| who)
    }

    #[test]
    fn names_authorization_ids_and_tokens_are_understood() {
        let user = |name: &str| Authenticated { principal: Principal::user(name), by_token: false, expires_ms: None };
        assert_eq!(login("n,,n=user,r=abc", "pencil", 0), Ok(Some(user("user"))));
        assert_eq!(login("n,a=user,n=user,r=abc", "pencil", 0), Ok(Some(user("user"))));
        assert_eq!(login("n,,n=a=2Cb=3Dc,r=abc", "pencil", 0), Ok(Some(user("a,b=c"))));
        let by_token = Authenticated { principal: Principal::user("owner"), by_token: true, expires_ms: Some(1000) };
        assert_eq!(login("n,,n=user,r=abc,tokenauth=true", "pencil", 999), Ok(Some(by_token)));
        let late = login("n,,n=user,r=abc,tokenauth=true", "pencil", 1001);
        assert_eq!(late, Err(Rejection::Kept("there is no such delegation token")));
    }

    #[test]
    fn whoever_does_not_know_the_password_is_refused() {
        assert_eq!(login("n,,n=user,r=abc", "pen", 0), Err(Rejection::Kept("the password is another one")));
        assert_eq!(login("n,,n=mallory,r=abc", "pencil", 0), Err(Rejection::Kept("there is no such user")));
        assert_eq!(login("n,a=root,n=user,r=abc", "pencil", 0), Err(other_user()));
        let few = ScramCredential { iterations: 100, ..pencil() };
        assert!(converse(ScramMechanism::Sha256, few, OUR_NONCE, 0, &[FIRST]).is_err());
    }

    #[test]
    fn messages_that_are_cut_or_changed_are_refused() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "y,,n=user,r=abc",
            "p=tls-unique,,n=user,r=abc",
            "n,,n=,r=abc",
            "n,,n=user,r=",
            "n,,n=us=er,r=abc",
            "n,,r=abc,n=user",
            "n,,n=user,r=abc,1=x",
            "n,,n=user,r=abc,x",
            "n,,n=a=2,r=abc",
        ] {
            assert!(converse(ScramMechanism::Sha256, pencil(), OUR_NONCE, 0, &[first]).is_err(), "{first}");
        }
        for at in 0..FINAL.len() {
            let cut = converse(ScramMechanism::Sha256, pencil(), OUR_NONCE, 0, &[FIRST, &FINAL[..at]]);
            assert!(cut.is_err(), "{}", &FINAL[..at]);
            let mut changed = FINAL.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let changed = converse(ScramMechanism::Sha256, pencil(), OUR_NONCE, 0, &[FIRST, &changed]);
            assert!(changed.is_err(), "byte {at} of the final message");
        }
        let twice = converse(ScramMechanism::Sha256, pencil(), OUR_NONCE, 0, &[FIRST, FINAL, FINAL]);
        assert_eq!(twice, Err(Rejection::Kept("the exchange is over")));
    }
}
