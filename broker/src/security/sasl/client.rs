//! The other side of PLAIN, SCRAM and OAUTHBEARER: this node logs in to another broker.

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;
use varve_metadata::model::ScramMechanism;

use super::{scram, token::LoginToken};
use crate::{
    config::{PasswordLogin, PasswordMechanism},
    security::Secret,
};

/// Why a login ends. It holds nothing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nonsense, or more rounds than Kafka allows.
    #[error("what it answers is no message of the mechanism")]
    Malformed,
    /// It has not the password that this node has: whoever it is, it is none of the brokers.
    #[error("it does not know the password itself, so it is not one of the brokers")]
    Impostor,
}

/// One login.
#[derive(Debug)]
pub struct MechanismClient {
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    ScramFirst {
        mechanism: ScramMechanism,
        password: Secret,
        nonce: String,
        bare: String,
    },
    ScramFinal {
        signature: Vec<u8>,
    },
    Token,
    /// The broker has said why it does not take the token, and waits for a last message.
    TokenRefused,
    Over,
}

impl MechanismClient {
    /// Begins with name and password; gives the first message. `nonce` is text that nobody can foresee.
    pub fn begin(login: &PasswordLogin, nonce: String) -> (MechanismClient, Vec<u8>) {
        match login.mechanism {
            PasswordMechanism::Plain => {
                let message = format!("\0{}\0{}", login.user, login.password.reveal());
                (MechanismClient { state: State::Plain }, message.into_bytes())
            }
            PasswordMechanism::Scram(mechanism) => {
                let bare = format!("n={},r={nonce}", escape(&login.user));
                let message = format!("n,,{bare}").into_bytes();
                let password = login.password.clone();
                (MechanismClient { state: State::ScramFirst { mechanism, password, nonce, bare } }, message)
            }
        }
    }

    /// Begins with a token, and what is told besides it; gives the first message (RFC 7628, section 3.1).
    pub fn begin_with_token(token: &LoginToken, extensions: &[(String, String)]) -> (MechanismClient, Vec<u8>) {
        let pairs = extensions.iter().map(|(key, value)| format!("{key}={value}\u{1}")).collect::<String>();
        let message = format!("n,,\u{1}auth=Bearer {}\u{1}{pairs}\u{1}", token.text.reveal());
        (MechanismClient { state: State::Token }, message.into_bytes())
    }

    /// Takes the broker's next message; gives the answer to it, or nothing once both sides are content.
    ///
    /// # Errors
    /// [`ClientError`]: the login is over.
    pub fn answer(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Plain => Ok(None),
            State::Token if message.is_empty() => Ok(None),
            State::Token => {
                // The answer to that is the refusal itself.
                self.state = State::TokenRefused;
                Ok(Some(vec![1]))
            }
            State::TokenRefused => Err(ClientError::Malformed),
            State::ScramFirst { mechanism, password, nonce, bare } => {
                let theirs = std::str::from_utf8(message).map_err(|_| ClientError::Malformed)?;
                let first = ServerFirst::parse(theirs, &nonce).ok_or(ClientError::Malformed)?;
                let salted = scram::salted_password(mechanism, &password, &first.salt, first.iterations);
                let without_proof = format!("c=biws,r={}", first.nonce);
                let signed = format!("{bare},{theirs},{without_proof}");
                let proof = STANDARD.encode(scram::proof(mechanism, &salted, signed.as_bytes()));
                let signature = scram::server_signature(mechanism, &salted, signed.as_bytes());
                self.state = State::ScramFinal { signature };
                Ok(Some(format!("{without_proof},p={proof}").into_bytes()))
            }
            State::ScramFinal { signature } => {
                let shown = message.strip_prefix(b"v=").and_then(|shown| STANDARD.decode(shown).ok());
                let shown = shown.ok_or(ClientError::Malformed)?;
                if bool::from(shown.as_slice().ct_eq(&signature)) { Ok(None) } else { Err(ClientError::Impostor) }
            }
            State::Over => Err(ClientError::Malformed),
        }
    }
}

/// `r=nonce,s=salt,i=iterations`
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn parse(text: &'a str, ours: &str) -> Option<ServerFirst<'a>> {
        let mut fields = text.split(',');
        let nonce = fields.next()?.strip_prefix("r=")?;
        let salt = STANDARD.decode(fields.next()?.strip_prefix("s=")?).ok()?;
        let iterations: u32 = fields.next()?.strip_prefix("i=")?.parse().ok()?;
        let is_sound = nonce.len() > ours.len()
            && nonce.starts_with(ours)
            && (ScramMechanism::MIN_ITERATIONS..=ScramMechanism::MAX_ITERATIONS).contains(&iterations);
        is_sound.then_some(ServerFirst { nonce, salt, iterations })
    }
}

/// A comma and an equals sign do not stand for themselves in a user's name.
fn escape(user: &str) -> String {
    user.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use varve_metadata::model::{DelegationToken, Principal, ScramCredential};

    use super::*;
    use crate::security::sasl::{
        Credentials, Mechanism, MechanismServer, OauthValidator, Rejection, Surroundings, TokenRules, Users,
        jwt::tests::{Provider, good},
    };

    struct Known(ScramMechanism, ScramCredential);

    impl Credentials for Known {
        fn scram(&self, mechanism: ScramMechanism, user: &str) -> Option<ScramCredential> {
            (mechanism == self.0 && user == "bro,k=er").then(|| self.1.clone())
        }

        fn delegation_token(&self, _: ScramMechanism, _: &str) -> Option<(DelegationToken, ScramCredential)> {
            None
        }
    }

    const MECHANISMS: [PasswordMechanism; 3] = [
        PasswordMechanism::Plain,
        PasswordMechanism::Scram(ScramMechanism::Sha256),
        PasswordMechanism::Scram(ScramMechanism::Sha512),
    ];

    fn login(mechanism: PasswordMechanism, password: &str) -> PasswordLogin {
        PasswordLogin { mechanism, user: "bro,k=er".to_owned(), password: Secret::new(password) }
    }

    /// Both sides to their ends: whom the broker takes the client for.
    fn converse(
        mechanism: Mechanism,
        (mut client, mut message): (MechanismClient, Vec<u8>),
        users: &Users,
        credentials: &dyn Credentials,
    ) -> Result<Option<Principal>, String> {
        let (mut server, nonce) = (MechanismServer::new(mechanism), || "theirs".to_owned());
        let around = Surroundings { now_ms: 1_500_000, nonce: &nonce, credentials };
        loop {
            let challenge = server.evaluate(&message, users, &around).map_err(|error: Rejection| error.to_string())?;
            match client.answer(&challenge.message).map_err(|error| error.to_string())? {
                Some(next) => message = next,
                None => return Ok(challenge.authenticated.map(|who| who.principal)),
            }
        }
    }

    fn by_password(mechanism: PasswordMechanism, known: &str, given: &str) -> Result<Option<Principal>, String> {
        let scram = match mechanism {
            PasswordMechanism::Scram(scram) => scram,
            PasswordMechanism::Plain => ScramMechanism::Sha256,
        };
        let known = Secret::new(known);
        let credentials = Known(scram, scram::credential(scram, &known, b"salt".to_vec(), 4096));
        let users = Users { plain: BTreeMap::from([("bro,k=er".to_owned(), known)]), oauth: None };
        let begun = MechanismClient::begin(&login(mechanism, given), "ours".to_owned());
        converse(mechanism.in_general(), begun, &users, &credentials)
    }

    #[test]
    fn a_broker_gets_in_by_a_token_that_is_good_and_is_told_when_it_is_not() {
        let (provider, stranger) = (Provider::new(), Provider::new());
        let oauth = Some(OauthValidator(std::sync::Arc::new(TokenRules::Signed(provider.rules()))));
        let users = Users { oauth, ..Users::default() };
        let scram = ScramMechanism::Sha256;
        let nobody = Known(scram, scram::credential(scram, &Secret::new("x"), b"salt".to_vec(), 4096));
        let told = [("traceId".to_owned(), "12 3".to_owned()), ("cluster".to_owned(), "a=b".to_owned())];
        for (signer, extensions, expected) in [
            (&provider, &told[..0], Ok(Some(Principal::user("alice")))),
            (&provider, &told[..], Ok(Some(Principal::user("alice")))),
            (&stranger, &told[..], Err(r#"{"status":"invalid_token"}"#.to_owned())),
        ] {
            let token = LoginToken::parse(&signer.token(&good()), "sub").unwrap();
            let begun = MechanismClient::begin_with_token(&token, extensions);
            assert_eq!(converse(Mechanism::OauthBearer, begun, &users, &nobody), expected);
        }
    }

    #[test]
    fn a_broker_that_knows_the_password_gets_in_by_every_mechanism() {
        for mechanism in MECHANISMS {
            assert_eq!(
                by_password(mechanism, "secret", "secret"),
                Ok(Some(Principal::user("bro,k=er"))),
                "{mechanism:?}"
            );
            assert!(by_password(mechanism, "secret", "Secret").is_err(), "{mechanism:?}");
        }
    }

    #[test]
    fn who_does_not_know_the_password_is_not_taken_for_a_broker() {
        let scram = login(PasswordMechanism::Scram(ScramMechanism::Sha256), "pencil");
        let begin = || MechanismClient::begin(&scram, "rOprNGfwEbeRWgbNEkqO".to_owned()).0;
        let theirs = "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let mut client = begin();
        assert!(client.answer(theirs.as_bytes()).unwrap().is_some());
        let forged = format!("v={}", STANDARD.encode([0; 32]));
        assert_eq!(client.answer(forged.as_bytes()), Err(ClientError::Impostor));
        assert_eq!(client.answer(forged.as_bytes()), Err(ClientError::Malformed), "it is over");
        for cut in 0..theirs.len() {
            // A number that is cut short is too small, a salt another one.
            assert_eq!(begin().answer(&theirs.as_bytes()[..cut]), Err(ClientError::Malformed), "{}", &theirs[..cut]);
        }
        for other in [
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=somebodyElsesNonceThatIsLong,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
        ] {
            assert_eq!(begin().answer(other.as_bytes()), Err(ClientError::Malformed), "{other}");
        }
    }
}
