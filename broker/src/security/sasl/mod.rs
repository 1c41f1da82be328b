//! SASL: mechanisms as state machines over messages, without sockets or clocks.
//!
//! ```text
//!   ApiVersions? ─► SaslHandshake(mechanism) ─► SaslAuthenticate(message) … ─► session
//!                                                       │ evaluate
//!                        PLAIN (RFC 4616) · SCRAM (RFC 5802, 7677) · OAUTHBEARER (RFC 7628)
//! ```
//! A [`MechanismServer`] takes the client's messages one after the other and answers each. What it needs to know (users,
//! the time, something random) comes in with [`Surroundings`].

mod client;
mod endpoint;
mod jaas;
pub mod jwks;
mod jwt;
mod oauthbearer;
mod plain;
pub mod scram;
mod token;
mod tokens;

use std::collections::BTreeMap;

use varve_metadata::model::{DelegationToken, Principal, ScramCredential, ScramMechanism};

pub use client::{ClientError, MechanismClient};
pub use endpoint::{SaslEndpoint, SaslState};
pub use jaas::{JaasEntry, JaasError, parse_jaas};
pub use jwt::{ClaimRules, JwtRules, TokenRules, UnsecuredRules};
pub use oauthbearer::OauthValidator;
pub use token::{LoginToken, MalformedToken, Refresh, TokenEndpoint, TokenOrigin, TokenSource};
pub use tokens::{TokenError, Tokens};

use super::Secret;
use oauthbearer::OauthServer;
use scram::ScramServer;

/// A mechanism that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// User and password as they are: for TLS.
    Plain,
    /// Proof of a password, of which neither side sends anything.
    Scram(ScramMechanism),
    /// A token of somebody whom the broker trusts.
    OauthBearer,
}

impl Mechanism {
    /// Every mechanism.
    pub const ALL: [Mechanism; 4] = [
        Mechanism::Plain,
        Mechanism::Scram(ScramMechanism::Sha256),
        Mechanism::Scram(ScramMechanism::Sha512),
        Mechanism::OauthBearer,
    ];

    /// Its name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram(scram) => scram.name(),
            Mechanism::OauthBearer => "OAUTHBEARER",
        }
    }

    /// By its name in SASL.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }
}

/// Who may log in to a listener, apart from what the cluster knows.
#[derive(Clone, Debug, Default)]
pub struct Users {
    /// Users of PLAIN and their passwords.
    pub plain: BTreeMap<String, Secret>,
    /// What a token of OAUTHBEARER must be.
    pub oauth: Option<OauthValidator>,
}

/// What the cluster knows of those who log in.
pub trait Credentials {
    /// A user's password, hashed.
    fn scram(&self, mechanism: ScramMechanism, user: &str) -> Option<ScramCredential>;

    /// A delegation token, and its password, hashed.
    fn delegation_token(&self, mechanism: ScramMechanism, id: &str) -> Option<(DelegationToken, ScramCredential)>;
}

/// What a mechanism may ask about the world.
pub struct Surroundings<'a> {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Text of printable characters that nobody can foresee.
    pub nonce: &'a dyn Fn() -> String,
    /// What the cluster knows.
    pub credentials: &'a dyn Credentials,
}

/// Whom a mechanism has made out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who it is.
    pub principal: Principal,
    /// By a delegation token: who has one may not make more of them.
    pub by_token: bool,
    /// When what was shown ends, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// One answer of a mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the client is told.
    pub message: Vec<u8>,
    /// Whom it is, once that is clear.
    pub authenticated: Option<Authenticated>,
}

/// Why somebody is not who he says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// In words for the client.
    #[error("{0}")]
    Told(String),
    /// In words for nobody but the node's own log: the client learns that it was not let in.
    #[error("{0}")]
    Kept(&'static str),
}

/// The broker's side of one exchange.
#[derive(Debug)]
pub enum MechanismServer {
    /// PLAIN: one message.
    Plain,
    /// SCRAM: two messages.
    Scram(Box<ScramServer>),
    /// OAUTHBEARER: one message, and one more after a refusal.
    OauthBearer(OauthServer),
}

impl MechanismServer {
    /// The start of an exchange.
    pub fn new(mechanism: Mechanism) -> MechanismServer {
        match mechanism {
            Mechanism::Plain => MechanismServer::Plain,
            Mechanism::Scram(scram) => MechanismServer::Scram(Box::new(ScramServer::new(scram))),
            Mechanism::OauthBearer => MechanismServer::OauthBearer(OauthServer::default()),
        }
    }

    /// Answers the client's next message.
    ///
    /// # Errors
    /// [`Rejection`]: the exchange is over.
    pub fn evaluate(
        &mut self,
        message: &[u8],
        users: &Users,
        around: &Surroundings<'_>,
    ) -> Result<Challenge, Rejection> {
        match self {
            MechanismServer::Plain => plain::evaluate(message, &users.plain),
            MechanismServer::Scram(server) => server.evaluate(message, around),
            MechanismServer::OauthBearer(server) => server.evaluate(message, users.oauth.as_ref(), around.now_ms),
        }
    }
}

/// Kafka says the same, whatever the mechanism, to who wants to be somebody else than he is.
fn other_user() -> Rejection {
    Rejection::Told(
        "Authentication failed: Client requested an authorization id that is different from username".into(),
    )
}
