//! PLAIN (RFC 4616): `[authorization id] NUL user NUL password`, in the clear, which is why it belongs into TLS.

use std::collections::BTreeMap;

use varve_metadata::model::Principal;

use super::{Authenticated, Challenge, Rejection, other_user};
use crate::security::Secret;

/// Checks the one message of PLAIN.
pub(super) fn evaluate(message: &[u8], users: &BTreeMap<String, Secret>) -> Result<Challenge, Rejection> {
    let parts: Vec<&[u8]> = message.split(|byte| *byte == 0).collect();
    let [authorization, user, password] = parts[..] else {
        return Err(Rejection::Kept("a message of PLAIN has three parts"));
    };
    let (authorization, user, password) =
        (String::from_utf8_lossy(authorization), String::from_utf8_lossy(user), String::from_utf8_lossy(password));
    if user.is_empty() {
        return Err(Rejection::Kept("no user was named"));
    }
    if password.is_empty() {
        return Err(Rejection::Kept("no password was given"));
    }
    let given = Secret::new(password);
    if users.get(user.as_ref()).is_none_or(|known| *known != given) {
        return Err(Rejection::Told("Authentication failed: Invalid username or password".into()));
    }
    if !authorization.is_empty() && authorization != user {
        return Err(other_user());
    }
    let principal = Principal::user(&user);
    let authenticated = Authenticated { principal, by_token: false, expires_ms: None };
    Ok(Challenge { message: Vec::new(), authenticated: Some(authenticated) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(message: &str) -> Result<String, Rejection> {
        let users =
            BTreeMap::from([("alice".to_owned(), Secret::new("alice-secret")), ("bøb".into(), Secret::new("ü"))]);
        let done = evaluate(message.as_bytes(), &users)?;
        assert_eq!(done.message, b"");
        Ok(done.authenticated.unwrap().principal.to_string())
    }

    #[test]
    fn a_user_with_the_right_password_gets_in() {
        assert_eq!(login("\0alice\0alice-secret").as_deref(), Ok("User:alice"));
        assert_eq!(login("alice\0alice\0alice-secret").as_deref(), Ok("User:alice"));
        assert_eq!(login("\0bøb\0ü").as_deref(), Ok("User:bøb"));
    }

    #[test]
    fn nobody_else_does() {
        let wrong = Rejection::Told("Authentication failed: Invalid username or password".into());
        for message in ["\0alice\0alice", "\0alice\0alice-secret2", "\0mallory\0alice-secret"] {
            assert_eq!(login(message), Err(wrong.clone()), "{message:?}");
        }
        assert_eq!(login("bob\0alice\0alice-secret"), Err(other_user()));
        for message in ["", "alice", "\0alice", "\0alice\0", "\0\0x", "\0alice\0alice-secret\0"] {
            assert!(matches!(login(message), Err(Rejection::Kept(_))), "{message:?}");
        }
    }
}
