//! Users that are there before anybody can log in to make them: `varve.first.users`, in the words of
//! `kafka-storage.sh format --add-scram`.

use std::fmt;

use varve_metadata::model::ScramMechanism;

use super::settings::Reader;
use crate::security::Secret;

/// One user of SCRAM. Made at a start, unless the cluster knows the user already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstUser {
    /// The user's name.
    pub name: String,
    /// In which mechanism.
    pub mechanism: ScramMechanism,
    /// The password.
    pub password: Secret,
    /// Rounds of hashing.
    pub iterations: u32,
}

const NAME: &str = "varve.first.users";

/// What is allowed; the text itself is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SCRAM-SHA-256=[name=NAME,password=PASSWORD], several with semicolons between them: {}", self.0)
    }
}

impl FirstUser {
    pub(super) fn read(reader: &mut Reader<'_>) -> Vec<FirstUser> {
        let text = reader.text(NAME).unwrap_or_default();
        parse(&text).unwrap_or_else(|malformed| {
            reader.invalid(NAME, malformed.to_string());
            Vec::new()
        })
    }
}

fn parse(text: &str) -> Result<Vec<FirstUser>, Malformed> {
    let mut users = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (mechanism, behind) = rest.split_once('=').ok_or(Malformed("there is no ="))?;
        let mechanism = ScramMechanism::parse(mechanism.trim()).ok_or(Malformed("the mechanism is no SCRAM"))?;
        // A password may have brackets: the entry ends where a semicolon or nothing follows one.
        let body = behind.trim_start().strip_prefix('[').ok_or(Malformed("there is no ["))?;
        let (body, behind) = match body.find("];") {
            Some(end) => (&body[..end], &body[end + 2..]),
            None => (body.trim_end().strip_suffix(']').ok_or(Malformed("there is no ]"))?, ""),
        };
        users.push(user(mechanism, body)?);
        rest = behind.trim();
    }
    Ok(users)
}

fn user(mechanism: ScramMechanism, body: &str) -> Result<FirstUser, Malformed> {
    let (mut name, mut password, mut iterations) = (None, None, ScramMechanism::MIN_ITERATIONS);
    for field in body.split(',') {
        match field.split_once('=').ok_or(Malformed("a field has no ="))? {
            ("name", value) if !value.is_empty() => name = Some(value.to_owned()),
            ("password", value) if !value.is_empty() => password = Some(Secret::new(value)),
            ("iterations", value) => iterations = value.parse().map_err(|_| Malformed("iterations is no number"))?,
            _ => return Err(Malformed("fields are name, password and iterations")),
        }
    }
    if !(ScramMechanism::MIN_ITERATIONS..=ScramMechanism::MAX_ITERATIONS).contains(&iterations) {
        return Err(Malformed("iterations are 4096 to 16384"));
    }
    let (name, password) = name.zip(password).ok_or(Malformed("a user has a name and a password"))?;
    Ok(FirstUser { name, mechanism, password, iterations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_written_as_for_kafkas_storage_tool() {
        let users =
            parse("SCRAM-SHA-256=[name=admin,password=a=b]c];SCRAM-SHA-512=[iterations=8192,name=bob,password=x]")
                .unwrap();
        let shown: Vec<_> =
            users.iter().map(|user| (user.name.as_str(), user.mechanism.name(), user.iterations)).collect();
        assert_eq!(shown, [("admin", "SCRAM-SHA-256", 4096), ("bob", "SCRAM-SHA-512", 8192)]);
        assert_eq!((users[0].password.reveal(), users[1].password.reveal()), ("a=b]c", "x"));
        assert_eq!(parse(" "), Ok(vec![]));
    }

    #[test]
    fn what_is_none_is_refused_without_being_repeated() {
        for text in [
            "admin",
            "PLAIN=[name=a,password=b]",
            "SCRAM-SHA-256=name=a",
            "SCRAM-SHA-256=[name=a,password=b",
            "SCRAM-SHA-256=[name=a]",
            "SCRAM-SHA-256=[name=a,password=hunter2,iterations=4095]",
            "SCRAM-SHA-256=[name=a,password=hunter2,salt=x]",
        ] {
            let malformed = parse(text).unwrap_err();
            assert!(!malformed.to_string().contains("hunter2"), "{text}");
        }
    }
}
