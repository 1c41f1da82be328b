//! Tokens of OAUTHBEARER: JSON Web Tokens (RFC 7519), signed by a key of the identity provider (RFC 7517), or, where that is
//! asked for by name, not signed at all.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Header, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use serde_json::{Map, Value};

use super::jwks::Jwks;

/// Signatures that prove who made them. Those by a shared secret (HS…) do not: who can check one can make one.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What a signed token must say.
#[derive(Clone, Debug)]
pub struct JwtRules {
    /// The provider's keys.
    pub keys: Arc<Jwks>,
    /// It must name one of these (`aud`); any if empty.
    pub audiences: BTreeSet<String>,
    /// It must come from here (`iss`).
    pub issuer: Option<String>,
    /// How its claims are read.
    pub claims: ClaimRules,
}

/// What an unsigned token must say.
#[derive(Clone, Debug)]
pub struct UnsecuredRules {
    /// How its claims are read.
    pub claims: ClaimRules,
}

/// How claims are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRules {
    /// The claim that names the user.
    pub subject: String,
    /// The claim with its scopes.
    pub scope: String,
    /// Scopes that it must have.
    pub required_scopes: BTreeSet<String>,
    /// How far clocks may be apart, in milliseconds.
    pub clock_skew_ms: i64,
}

/// Which tokens are good.
#[derive(Clone, Debug)]
pub enum TokenRules {
    /// Signed ones.
    Signed(JwtRules),
    /// Unsigned ones: anybody can make them.
    Unsecured(UnsecuredRules),
}

/// A token that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Whom it names.
    pub(super) subject: String,
    /// When it ends, in milliseconds since 1970.
    pub(super) expires_ms: i64,
}

/// Why a token is none. The reason is for the node's log; nothing of the token is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("it is no JSON web token")]
    Malformed,
    #[error("it is not signed by an algorithm that proves who made it")]
    Algorithm,
    #[error("the provider has no key of its name")]
    UnknownKey,
    #[error("its signature is not by the provider's key")]
    Signature,
    #[error("the claim {0} is missing or of the wrong kind")]
    Claim(String),
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    Early,
    #[error("it is for another audience")]
    Audience,
    #[error("it is from another issuer")]
    Issuer,
    #[error("it lacks a scope")]
    Scope,
}

impl TokenRules {
    /// Checks a token at `now_ms`.
    pub(super) fn check(&self, token: &str, now_ms: i64) -> Result<Token, TokenError> {
        match self {
            TokenRules::Signed(rules) => rules.check(token, now_ms),
            TokenRules::Unsecured(rules) => {
                let claims = unsigned_claims(token)?;
                rules.claims.read(&claims, now_ms, false)
            }
        }
    }
}

impl JwtRules {
    fn check(&self, token: &str, now_ms: i64) -> Result<Token, TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(TokenError::Algorithm);
        }
        let claims = self.signed_claims(token, &header)?;
        let named = |name: &str, wanted: &dyn Fn(&str) -> bool| match claims.get(name) {
            Some(Value::String(one)) => wanted(one),
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).any(wanted),
            _ => false,
        };
        if !self.audiences.is_empty() && !named("aud", &|audience| self.audiences.contains(audience)) {
            return Err(TokenError::Audience);
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(TokenError::Issuer);
        }
        self.claims.read(&claims, now_ms, true)
    }

    /// The claims, once a key of the provider turns out to have signed them.
    fn signed_claims(&self, token: &str, header: &Header) -> Result<Map<String, Value>, TokenError> {
        let keys = self.keys.keys();
        let fits = |key: &&Jwk| {
            let for_signatures = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
            let named = header.kid.is_none() || key.common.key_id == header.kid;
            for_signatures && named && is_of(key, header.alg)
        };
        let mut fitting = keys.keys.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            // The provider may have a new one: it is asked, in the background, for whoever comes next.
            self.keys.ask_soon();
            return Err(TokenError::UnknownKey);
        }
        // Time, audience and issuer are checked by ourselves: by a clock that is handed in.
        let mut signature_alone = Validation::new(header.alg);
        signature_alone.required_spec_claims.clear();
        signature_alone.validate_exp = false;
        signature_alone.validate_aud = false;
        let claims = fitting.find_map(|key| {
            let key = DecodingKey::from_jwk(key).ok()?;
            Some(decode::<Map<String, Value>>(token, &key, &signature_alone).ok()?.claims)
        });
        claims.ok_or(TokenError::Signature)
    }
}

/// Whether `key` can be one that made signatures of this kind.
fn is_of(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), RS256 | RS384 | RS512 | PS256 | PS384 | PS512) => true,
        (AlgorithmParameters::EllipticCurve(_), ES256 | ES384) | (AlgorithmParameters::OctetKeyPair(_), EdDSA) => true,
        (_, HS256 | HS384 | HS512) => false,
        _ => false,
    }
}

/// The claims of a token that says of itself that it is not signed.
fn unsigned_claims(token: &str) -> Result<Map<String, Value>, TokenError> {
    let object = |part: &str| -> Option<Map<String, Value>> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?).ok()
    };
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let header = object(header).ok_or(TokenError::Malformed)?;
    if header.get("alg").and_then(Value::as_str) != Some("none") || !signature.is_empty() {
        return Err(TokenError::Algorithm);
    }
    object(claims).ok_or(TokenError::Malformed)
}

impl ClaimRules {
    fn read(&self, claims: &Map<String, Value>, now_ms: i64, issued_required: bool) -> Result<Token, TokenError> {
        let wrong = |name: &str| TokenError::Claim(name.to_owned());
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            // Seconds, with a fraction or without.
            Some(Value::Number(seconds)) => {
                let seconds = seconds.as_f64().filter(|seconds| (0.0..1e12).contains(seconds));
                seconds.map(|seconds| Some((seconds * 1000.0) as i64)).ok_or_else(|| wrong(name))
            }
            Some(_) => Err(wrong(name)),
        };
        let expires_ms = time("exp")?.ok_or_else(|| wrong("exp"))?;
        let issued_ms = time("iat")?;
        if issued_required && issued_ms.is_none() {
            return Err(wrong("iat"));
        }
        if expires_ms + self.clock_skew_ms <= now_ms {
            return Err(TokenError::Expired);
        }
        for begins_ms in [issued_ms.filter(|_| !issued_required), time("nbf")?].into_iter().flatten() {
            if begins_ms - self.clock_skew_ms > now_ms {
                return Err(TokenError::Early);
            }
        }
        if !self.required_scopes.is_subset(&self.scopes(claims)?) {
            return Err(TokenError::Scope);
        }
        let subject = claims.get(&self.subject).and_then(Value::as_str).map(str::trim).filter(|name| !name.is_empty());
        let subject = subject.ok_or_else(|| wrong(&self.subject))?.to_owned();
        Ok(Token { subject, expires_ms })
    }

    /// One text of words with blanks between them, or a list of words.
    fn scopes(&self, claims: &Map<String, Value>) -> Result<BTreeSet<String>, TokenError> {
        let wrong = || TokenError::Claim(self.scope.clone());
        match claims.get(&self.scope) {
            None | Some(Value::Null) => Ok(BTreeSet::new()),
            Some(Value::String(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
            Some(Value::Array(words)) => {
                words.iter().map(|word| word.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use jsonwebtoken::{EncodingKey, encode, jwk::JwkSet};
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    /// A provider with one key.
    pub(in crate::security::sasl) struct Provider {
        key: EncodingKey,
        pub(in crate::security::sasl) keys: JwkSet,
    }

    impl Provider {
        pub(in crate::security::sasl) fn new() -> Provider {
            let random = ring::rand::SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
            let point = pair.public_key().as_ref();
            let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
            let key = json!({"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": x, "y": y});
            let keys = serde_json::from_value(json!({ "keys": [key] })).unwrap();
            Provider { key: EncodingKey::from_ec_der(pkcs8.as_ref()), keys }
        }

        pub(in crate::security::sasl) fn token(&self, claims: &Value) -> String {
            let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::ES256) };
            encode(&header, claims, &self.key).unwrap()
        }

        pub(in crate::security::sasl) fn rules(&self) -> JwtRules {
            JwtRules {
                keys: Arc::new(Jwks::of(self.keys.clone())),
                audiences: BTreeSet::from(["kafka".to_owned(), "logs".to_owned()]),
                issuer: Some("https://id.example".to_owned()),
                claims: claims(),
            }
        }
    }

    fn claims() -> ClaimRules {
        ClaimRules {
            subject: "sub".to_owned(),
            scope: "scope".to_owned(),
            required_scopes: BTreeSet::new(),
            clock_skew_ms: 30_000,
        }
    }

    pub(in crate::security::sasl) fn good() -> Value {
        json!({"sub": "alice", "iss": "https://id.example", "aud": "kafka", "iat": 1000, "exp": 2000})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = good();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> Value {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    #[test]
    fn a_token_that_says_what_it_must_is_good() {
        let provider = Provider::new();
        let rules = TokenRules::Signed(provider.rules());
        let alice = Token { subject: "alice".into(), expires_ms: 2_000_000 };
        for claims in [good(), with("aud", json!(["x", "logs"])), with("scope", json!("a b")), with("nbf", json!(1029))]
        {
            assert_eq!(rules.check(&provider.token(&claims), 1_000_000), Ok(alice.clone()), "{claims}");
        }
        assert_eq!(rules.check(&provider.token(&good()), 2_029_999), Ok(alice), "clocks may differ");
    }

    #[test]
    fn a_token_that_does_not_is_none() {
        let provider = Provider::new();
        let rules = TokenRules::Signed(provider.rules());
        let claim = |name: &str| TokenError::Claim(name.into());
        for (claims, error) in [
            (without("exp"), claim("exp")),
            (without("iat"), claim("iat")),
            (without("sub"), claim("sub")),
            (with("sub", json!(" ")), claim("sub")),
            (with("exp", json!("soon")), claim("exp")),
            (with("scope", json!(7)), claim("scope")),
            (with("exp", json!(970)), TokenError::Expired),
            (with("nbf", json!(1031)), TokenError::Early),
            (with("aud", json!("other")), TokenError::Audience),
            (without("aud"), TokenError::Audience),
            (with("iss", json!("https://id.example/")), TokenError::Issuer),
        ] {
            assert_eq!(rules.check(&provider.token(&claims), 1_000_000), Err(error), "{claims}");
        }
        let stranger = Provider::new();
        assert_eq!(rules.check(&stranger.token(&good()), 1_000_000), Err(TokenError::Signature));
        for token in ["", "a.b", "a.b.c", &provider.token(&good())[1..]] {
            assert_eq!(rules.check(token, 0), Err(TokenError::Malformed), "{token}");
        }
        // With the public key as a shared secret: the oldest trick of all.
        let forged = encode(&Header::new(Algorithm::HS256), &good(), &EncodingKey::from_secret(b"x")).unwrap();
        assert_eq!(rules.check(&forged, 1_000_000), Err(TokenError::Algorithm));
        assert!(rules.check(&unsigned(&good()), 1_000_000).is_err());
    }

    #[test]
    fn a_key_that_is_not_known_is_asked_for() {
        let provider = Provider::new();
        let rules = JwtRules { keys: Arc::new(Jwks::of(JwkSet { keys: Vec::new() })), ..provider.rules() };
        assert_eq!(rules.check(&provider.token(&good()), 1_000_000), Err(TokenError::UnknownKey));
        assert!(rules.keys.is_asked());
    }

    fn unsigned(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(&json!({"alg": "none"})), part(claims))
    }

    #[test]
    fn unsigned_tokens_are_good_only_where_they_are_asked_for() {
        let required_scopes = BTreeSet::from(["write".to_owned()]);
        let rules = TokenRules::Unsecured(UnsecuredRules { claims: ClaimRules { required_scopes, ..claims() } });
        let token = unsigned(&json!({"sub": "bob", "exp": 2000.5, "scope": ["read", "write"]}));
        assert_eq!(rules.check(&token, 1_000_000), Ok(Token { subject: "bob".into(), expires_ms: 2_000_500 }));
        assert_eq!(rules.check(&unsigned(&good()), 1_000_000), Err(TokenError::Scope));
        let signed = Provider::new().token(&good());
        assert_eq!(rules.check(&signed, 1_000_000), Err(TokenError::Algorithm));
        assert_eq!(rules.check(&format!("{token}x"), 1_000_000), Err(TokenError::Algorithm));
    }
}
