//! One listener's side of SASL, and how it follows its settings.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{
    JwtRules, OauthValidator, TokenRules, Tokens, UnsecuredRules, Users,
    jwks::{Jwks, JwksSource},
};
use crate::config::{OauthConfig, SaslConfig};

/// SASL for a listener's connections.
#[derive(Debug)]
pub struct SaslEndpoint {
    current: ArcSwap<SaslState>,
    oauth: Option<OauthValidator>,
    keys: Option<(Arc<Jwks>, JwksSource)>,
    own_tokens: Tokens,
}

/// What an exchange that begins now goes by.
#[derive(Debug)]
pub struct SaslState {
    /// The settings.
    pub config: SaslConfig,
    /// Who may log in.
    pub users: Users,
}

impl SaslEndpoint {
    /// From settings. The keys of an identity provider are read by whoever takes [`keys`](Self::keys).
    pub fn new(config: SaslConfig) -> SaslEndpoint {
        let mut keys = None;
        let rules = config.oauth.clone().map(|oauth| match oauth {
            OauthConfig::Signed { source, audiences, issuer, claims } => {
                let of_provider = Arc::new(Jwks::default());
                keys = Some((of_provider.clone(), source));
                TokenRules::Signed(JwtRules { keys: of_provider, audiences, issuer, claims })
            }
            OauthConfig::Unsecured { claims } => TokenRules::Unsecured(UnsecuredRules { claims }),
        });
        let oauth = rules.map(|rules| OauthValidator(Arc::new(rules)));
        let current = ArcSwap::from_pointee(SaslState::of(config, oauth.clone()));
        SaslEndpoint { current, oauth, keys, own_tokens: Tokens::default() }
    }

    /// What an exchange goes by now.
    pub fn state(&self) -> Arc<SaslState> {
        self.current.load_full()
    }

    /// Goes by `config` from now on, but for clients' tokens, which keep to what they were told at the start.
    pub fn follow(&self, config: SaslConfig) {
        self.current.store(Arc::new(SaslState::of(config, self.oauth.clone())));
    }

    /// Tokens as which this node logs in to other brokers, where it does so by tokens.
    pub fn own_tokens(&self) -> &Tokens {
        &self.own_tokens
    }

    /// Keys that want to be kept up to date, and from where.
    pub fn keys(&self) -> Option<&(Arc<Jwks>, JwksSource)> {
        self.keys.as_ref()
    }
}

impl SaslState {
    fn of(config: SaslConfig, oauth: Option<OauthValidator>) -> SaslState {
        let users = Users { plain: config.plain_users.clone(), oauth };
        SaslState { config, users }
    }
}
