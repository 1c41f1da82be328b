//! OAUTHBEARER (RFC 7628, KIP-255), the broker's side.
//!
//! ```text
//!  n,[a=name],^Aauth=Bearer <token>^A[key=value^A…]^A   ─►   the token is good: done
//!                                                       ◄─   {"status":"invalid_token"}
//!  ^A                                                   ─►   refused, in those words
//! ```

use std::sync::Arc;

use tracing::info;
use varve_metadata::model::Principal;

use super::{Authenticated, Challenge, Rejection, TokenRules};

/// The separator of the message.
const CONTROL_A: u8 = 1;

/// Says which tokens are good.
#[derive(Clone, Debug)]
pub struct OauthValidator(pub Arc<TokenRules>);

/// One login.
#[derive(Debug, Default)]
pub struct OauthServer {
    /// What the client was told of its token. It answers with one byte, and is then refused.
    refusal: Option<String>,
}

impl OauthServer {
    pub(super) fn evaluate(
        &mut self,
        message: &[u8],
        validator: Option<&OauthValidator>,
        now_ms: i64,
    ) -> Result<Challenge, Rejection> {
        if let Some(refusal) = self.refusal.take()
            && message == [CONTROL_A]
        {
            return Err(Rejection::Told(refusal));
        }
        let first = FirstMessage::parse(message).ok_or(Rejection::Kept("no first message of OAUTHBEARER"))?;
        let OauthValidator(rules) = validator.ok_or(Rejection::Kept("OAUTHBEARER is not configured"))?;
        let token = match rules.check(first.token, now_ms) {
            Ok(token) => token,
            Err(reason) => {
                info!(%reason, "a token of OAUTHBEARER is refused");
                let refusal = r#"{"status":"invalid_token"}"#.to_owned();
                self.refusal = Some(refusal.clone());
                return Ok(Challenge { message: refusal.into_bytes(), authenticated: None });
            }
        };
        if !first.authorization.is_empty() && first.authorization != token.subject {
            return Err(Rejection::Told(format!(
                "Authentication failed: Client requested an authorization id ({}) that is different from the token's \
                 principal name ({})",
                first.authorization, token.subject
            )));
        }
        let (principal, expires_ms) = (Principal::user(&token.subject), Some(token.expires_ms));
        let authenticated = Authenticated { principal, by_token: false, expires_ms };
        Ok(Challenge { message: Vec::new(), authenticated: Some(authenticated) })
    }
}

struct FirstMessage<'a> {
    authorization: String,
    token: &'a str,
}

impl<'a> FirstMessage<'a> {
    fn parse(message: &'a [u8]) -> Option<FirstMessage<'a>> {
        let text = std::str::from_utf8(message).ok()?;
        let (authorization, rest) = text.strip_prefix("n,")?.split_once(',')?;
        let authorization = match authorization {
            "" => String::new(),
            named => named.strip_prefix("a=").filter(|name| !name.is_empty())?.replace("=2C", ",").replace("=3D", "="),
        };
        let pairs = rest.strip_prefix('\u{1}')?.strip_suffix('\u{1}')?;
        let pairs = if pairs.is_empty() { pairs } else { pairs.strip_suffix('\u{1}')? };
        let mut token = None;
        for pair in pairs.split('\u{1}') {
            let (key, value) = pair.split_once('=')?;
            let sound = |byte: u8| (0x21..=0x7e).contains(&byte) || b" \t\r\n".contains(&byte);
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphabetic()) || !value.bytes().all(sound) {
                return None;
            }
            if key == "auth" {
                let (scheme, credentials) = value.split_once(' ')?;
                token = Some(credentials.trim_start()).filter(|_| scheme.eq_ignore_ascii_case("bearer"));
            }
        }
        let token = token.filter(|token| {
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        })?;
        Some(FirstMessage { authorization, token })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::jwt::tests::{Provider, good},
        *,
    };

    #[test]
    fn a_good_token_gets_in_until_it_ends() {
        let provider = Provider::new();
        let validator = OauthValidator(Arc::new(TokenRules::Signed(provider.rules())));
        let login =
            |message: String, now_ms| OauthServer::default().evaluate(message.as_bytes(), Some(&validator), now_ms);
        let token = provider.token(&good());
        let alice = Authenticated { principal: Principal::user("alice"), by_token: false, expires_ms: Some(2_000_000) };
        for message in [
            format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}"),
            format!("n,a=alice,\u{1}auth=bearer  {token}\u{1}traceId=12 3\u{1}\u{1}"),
        ] {
            let done = login(message, 1_500_000).unwrap();
            assert_eq!((done.message.as_slice(), done.authenticated), (b"".as_slice(), Some(alice.clone())));
        }
        let other = login(format!("n,a=bob,\u{1}auth=Bearer {token}\u{1}\u{1}"), 1_500_000).unwrap_err();
        assert!(other.to_string().contains("(bob) that is different from the token's principal name (alice)"));
    }

    #[test]
    fn a_bad_token_is_refused_in_two_steps() {
        let provider = Provider::new();
        let validator = OauthValidator(Arc::new(TokenRules::Signed(provider.rules())));
        let mut server = OauthServer::default();
        let message = format!("n,,\u{1}auth=Bearer {}\u{1}\u{1}", provider.token(&good()));
        let told = server.evaluate(message.as_bytes(), Some(&validator), 3_000_000).unwrap();
        assert_eq!((told.message.as_slice(), told.authenticated), (br#"{"status":"invalid_token"}"#.as_slice(), None));
        let refused = server.evaluate(&[1], Some(&validator), 3_000_000).unwrap_err();
        assert_eq!(refused, Rejection::Told(r#"{"status":"invalid_token"}"#.into()));
    }

    #[test]
    fn what_is_no_message_of_the_mechanism_is_refused() {
        for message in [
            "",
            "\u{1}",
            "n,,",
            "n,,\u{1}\u{1}",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "n,,\u{1}auth=Basic x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer x\u{1}",
            "n,a=,\u{1}auth=Bearer x\u{1}\u{1}",
            "y,,\u{1}auth=Bearer x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer x y\u{1}\u{1}",
            "n,,\u{1}1=x\u{1}auth=Bearer x\u{1}\u{1}",
        ] {
            assert!(FirstMessage::parse(message.as_bytes()).is_none(), "{message:?}");
        }
    }
}
