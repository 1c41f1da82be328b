//! Java's login configuration, as Kafka takes it in `sasl.jaas.config`.
//!
//! ```text
//!  org.apache.kafka.common.security.plain.PlainLoginModule required
//!      username="broker" password="broker-secret"
//!      user_alice="alice-secret" user_bob="bob-secret" ;
//! ```

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

use crate::security::Secret;

/// One login module with its options. Every option may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JaasEntry {
    /// Java's name of the class.
    pub module: String,
    /// By name.
    pub options: BTreeMap<String, Secret>,
}

impl JaasEntry {
    /// The class without its package.
    pub fn class(&self) -> &str {
        self.module.rsplit('.').next().unwrap_or_default()
    }

    /// The users of `PlainLoginModule`: options called `user_<name>`.
    pub fn users(&self) -> BTreeMap<String, Secret> {
        let user = |(name, secret): (&String, &Secret)| Some((name.strip_prefix("user_")?.to_owned(), secret.clone()));
        self.options.iter().filter_map(user).collect()
    }
}

/// Why text is no login configuration. It holds nothing of the text, which is made of secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JaasError {
    /// No module at all.
    #[error("it names no login module")]
    Empty,
    /// Something else than `required`, `requisite`, `sufficient` or `optional` behind a module.
    #[error("required, requisite, sufficient or optional must follow the module")]
    Flag,
    /// An option without `=` and a value.
    #[error("each option must be name=\"value\"; a number needs quotes too")]
    Option,
    /// No semicolon at the end.
    #[error("it must end in a semicolon")]
    Unterminated,
    /// A quotation mark without its partner.
    #[error("a quotation mark has no partner")]
    Quote,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Sign(char),
}

/// Reads every module of a login configuration.
///
/// # Errors
/// [`JaasError`].
pub fn parse_jaas(text: &str) -> Result<Vec<JaasEntry>, JaasError> {
    let mut tokens = tokens(text)?.into_iter().peekable();
    let mut entries = Vec::new();
    while let Some(first) = tokens.next() {
        let Token::Word(module) = first else { return Err(JaasError::Empty) };
        const FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];
        match tokens.next() {
            Some(Token::Word(flag)) if FLAGS.iter().any(|known| flag.eq_ignore_ascii_case(known)) => {}
            _ => return Err(JaasError::Flag),
        }
        let mut options = BTreeMap::new();
        loop {
            match tokens.next() {
                Some(Token::Sign(';')) => break,
                Some(Token::Word(name) | Token::Quoted(name)) => {
                    let value = match (tokens.next(), tokens.next()) {
                        (Some(Token::Sign('=')), Some(Token::Word(value) | Token::Quoted(value))) => value,
                        _ => return Err(JaasError::Option),
                    };
                    options.insert(name, Secret::new(value));
                }
                Some(Token::Sign(_)) => return Err(JaasError::Option),
                None => return Err(JaasError::Unterminated),
            }
        }
        entries.push(JaasEntry { module, options });
    }
    if entries.is_empty() { Err(JaasError::Empty) } else { Ok(entries) }
}

/// Words, quoted texts and signs, as Java's `StreamTokenizer` cuts them; comments are left out.
fn tokens(text: &str) -> Result<Vec<Token>, JaasError> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            '"' | '\'' => tokens.push(Token::Quoted(quoted(&mut rest, first)?)),
            '/' if rest.peek() == Some(&'/') => rest.by_ref().take_while(|next| *next != '\n').for_each(drop),
            '/' if rest.peek() == Some(&'*') => skip_comment(&mut rest),
            blank if blank <= ' ' => {}
            letter if is_word(letter) => {
                let mut word = String::from(letter);
                while let Some(next) = rest.next_if(|next| is_word(*next)) {
                    word.push(next);
                }
                // Java takes a number for a number, which is no value of an option.
                if word.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte)) {
                    return Err(JaasError::Option);
                }
                tokens.push(Token::Word(word));
            }
            sign => tokens.push(Token::Sign(sign)),
        }
    }
    Ok(tokens)
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "._-$".contains(letter) || letter >= '\u{a0}'
}

fn skip_comment(rest: &mut Peekable<Chars<'_>>) {
    rest.next();
    let mut before = ' ';
    for next in rest.by_ref() {
        if before == '*' && next == '/' {
            return;
        }
        before = next;
    }
}

/// The text up to `mark`. A backslash stands for what it stands for in Java.
fn quoted(rest: &mut Peekable<Chars<'_>>, mark: char) -> Result<String, JaasError> {
    let mut text = String::new();
    loop {
        match rest.next().ok_or(JaasError::Quote)? {
            '\n' | '\r' => return Err(JaasError::Quote),
            '\\' => text.push(escaped(rest)?),
            end if end == mark => return Ok(text),
            other => text.push(other),
        }
    }
}

fn escaped(rest: &mut Peekable<Chars<'_>>) -> Result<char, JaasError> {
    Ok(match rest.next().ok_or(JaasError::Quote)? {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        first @ '0'..='7' => {
            // Up to three digits, of which the first is at most 3.
            let mut code = first.to_digit(8).unwrap_or_default();
            for _ in 0..if first <= '3' { 2 } else { 1 } {
                let Some(digit) = rest.next_if(|next| next.is_digit(8)) else { break };
                code = code * 8 + digit.to_digit(8).unwrap_or_default();
            }
            char::from_u32(code).unwrap_or_default()
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_options_are_read_as_java_reads_them() {
        let text = "org.apache.kafka.common.security.plain.PlainLoginModule Required // the broker\n\
                    username=\"bro\\\"ker\" password='s;e=c' /* and\n users */ user_alice=\"alice\\054secret\"\n\
                    \"user_b o b\"=word-$1.x ;\nOther optional;";
        let entries = parse_jaas(text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].class(), "PlainLoginModule");
        let option = |name: &str| entries[0].options[name].reveal().to_owned();
        assert_eq!((option("username").as_str(), option("password").as_str()), ("bro\"ker", "s;e=c"));
        let users = entries[0].users();
        assert_eq!(users.keys().collect::<Vec<_>>(), ["alice", "b o b"]);
        assert_eq!((users["alice"].reveal(), users["b o b"].reveal()), ("alice,secret", "word-$1.x"));
        assert!(!format!("{entries:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_login_configuration_is_refused() {
        for (text, error) in [
            ("", JaasError::Empty),
            ("; required", JaasError::Empty),
            ("X", JaasError::Flag),
            ("X always;", JaasError::Flag),
            ("X required", JaasError::Unterminated),
            ("X required a=\"b\"", JaasError::Unterminated),
            ("X required a;", JaasError::Option),
            ("X required a=;", JaasError::Option),
            ("X required a=12;", JaasError::Option),
            ("X required a=\"b;", JaasError::Quote),
            ("X required a=\"b\n\";", JaasError::Quote),
        ] {
            assert_eq!(parse_jaas(text), Err(error), "{text}");
        }
    }
}
