//! `ssl.principal.mapping.rules` (KIP-371): from a certificate's subject to a user's name.
//!
//! ```text
//!  rules:  rule ( , rule )*
//!  rule:   DEFAULT                                the subject as it is
//!        | RULE:pattern/replacement/              a Java regular expression that matches the whole subject
//!        | RULE:pattern/replacement/L  or  /U     and the result in lower or upper case
//! ```
//! The first rule that matches decides. A slash inside of a part is written `\/`. Patterns are regular expressions in the
//! sense of the word: look-around and back references within a pattern are refused, so that no subject, however made up, can
//! keep a rule busy.

use regex::{Captures, Regex};

/// Rules, in order.
#[derive(Clone, Debug)]
pub struct PrincipalMapping(Vec<Rule>);

#[derive(Clone, Debug)]
enum Rule {
    Default,
    Replace { whole: Regex, pattern: Regex, replacement: Vec<Part>, case: Case },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Kept,
    Lower,
    Upper,
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Group(usize),
    Named(String),
}

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Neither `DEFAULT` nor `RULE:pattern/replacement/[LU]`.
    #[error("rules like DEFAULT or RULE:pattern/replacement/[LU], comma-separated; {0} is not one")]
    Rule(String),
    /// The pattern is none, or asks for look-around or back references.
    #[error("a pattern that can be used: {0}")]
    Pattern(String),
    /// The replacement names a group that the pattern does not have, or ends in a lone `\` or `$`.
    #[error("a replacement of text, $number and ${{name}}; {0} is not one")]
    Replacement(String),
}

impl Default for PrincipalMapping {
    fn default() -> PrincipalMapping {
        PrincipalMapping(vec![Rule::Default])
    }
}

impl PrincipalMapping {
    /// Reads `ssl.principal.mapping.rules`.
    ///
    /// # Errors
    /// [`MappingError`].
    pub fn parse(text: &str) -> Result<PrincipalMapping, MappingError> {
        let mut rules = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (rule, behind) = take_rule(rest)?;
            rules.extend(rule);
            let behind = behind.trim_start();
            rest = match behind.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if behind.is_empty() => behind,
                None => return Err(MappingError::Rule(rest.to_owned())),
            };
        }
        Ok(PrincipalMapping(rules))
    }

    /// The name for `subject`; `None` if no rule matches, and then nobody is let in.
    pub fn name(&self, subject: &str) -> Option<String> {
        self.0.iter().find_map(|rule| rule.apply(subject))
    }
}

/// One rule off the front of `text`, and what stands behind it. `None` for an empty one, which Kafka lets pass.
fn take_rule(text: &str) -> Result<(Option<Rule>, &str), MappingError> {
    if text.starts_with(',') {
        return Ok((None, text));
    }
    if let Some(behind) = text.strip_prefix("DEFAULT") {
        return Ok((Some(Rule::Default), behind));
    }
    let wrong = || MappingError::Rule(text.to_owned());
    let body = text.strip_prefix("RULE:").ok_or_else(wrong)?;
    let (pattern, body) = until_slash(body).ok_or_else(wrong)?;
    let (replacement, behind) = until_slash(body).ok_or_else(wrong)?;
    let (case, behind) = match behind.as_bytes().first() {
        Some(b'L') => (Case::Lower, &behind[1..]),
        Some(b'U') => (Case::Upper, &behind[1..]),
        _ => (Case::Kept, behind),
    };
    let compile = |text: &str| Regex::new(text).map_err(|error| MappingError::Pattern(error.to_string()));
    let whole = compile(&format!("^(?:{pattern})$"))?;
    let pattern = compile(pattern)?;
    let replacement = parse_replacement(replacement, &pattern)?;
    Ok((Some(Rule::Replace { whole, pattern, replacement, case }), behind))
}

/// What stands before the first slash that no backslash escapes, and what stands behind it.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'/' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Java's syntax of replacements. A number is as many digits as make a group of the pattern; where even the first one makes
/// none, `$` is text, as Kafka takes it.
fn parse_replacement(text: &str, pattern: &Regex) -> Result<Vec<Part>, MappingError> {
    let wrong = || MappingError::Replacement(text.to_owned());
    let groups = pattern.captures_len() - 1;
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        let part = match first {
            '\\' => {
                let escaped = rest.chars().next().ok_or_else(wrong)?;
                rest = &rest[escaped.len_utf8()..];
                literal.push(escaped);
                continue;
            }
            '$' if rest.starts_with('{') => {
                let (name, behind) = rest[1..].split_once('}').ok_or_else(wrong)?;
                if !pattern.capture_names().flatten().any(|known| known == name) {
                    return Err(wrong());
                }
                rest = behind;
                Part::Named(name.to_owned())
            }
            '$' => {
                let mut number = rest.bytes().next().filter(u8::is_ascii_digit).map(digit).ok_or_else(wrong)?;
                if number > groups {
                    literal.push('$');
                    continue;
                }
                rest = &rest[1..];
                while let Some(next) = rest.bytes().next().filter(u8::is_ascii_digit) {
                    let longer = number * 10 + digit(next);
                    if longer > groups {
                        break;
                    }
                    number = longer;
                    rest = &rest[1..];
                }
                Part::Group(number)
            }
            text => {
                literal.push(text);
                continue;
            }
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(part);
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn digit(byte: u8) -> usize {
    usize::from(byte - b'0')
}

impl Rule {
    fn apply(&self, subject: &str) -> Option<String> {
        let Rule::Replace { whole, pattern, replacement, case } = self else { return Some(subject.to_owned()) };
        if !whole.is_match(subject) {
            return None;
        }
        let name = replace_all(pattern, subject, replacement);
        Some(match case {
            Case::Kept => name,
            Case::Lower => name.to_lowercase(),
            Case::Upper => name.to_uppercase(),
        })
    }
}

/// Java's `replaceAll`, which also replaces the empty match right behind another one: `.*` by `x` makes `xx`.
fn replace_all(pattern: &Regex, subject: &str, replacement: &[Part]) -> String {
    let (mut out, mut copied, mut from) = (String::new(), 0, 0);
    while from <= subject.len() {
        let Some(found) = pattern.captures_at(subject, from) else { break };
        let (start, end) = found.get(0).map_or((from, from), |whole| (whole.start(), whole.end()));
        out.push_str(&subject[copied..start]);
        replacement.iter().for_each(|part| out.push_str(part.text(&found)));
        copied = end;
        from = match end > start {
            true => end,
            false => end + subject[end..].chars().next().map_or(1, char::len_utf8),
        };
    }
    out.push_str(&subject[copied.min(subject.len())..]);
    out
}

impl Part {
    fn text<'a>(&'a self, found: &Captures<'a>) -> &'a str {
        match self {
            Part::Literal(text) => text,
            Part::Group(number) => found.get(*number).map_or("", |group| group.as_str()),
            Part::Named(name) => found.name(name).map_or("", |group| group.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(rules: &str, subject: &str) -> Option<String> {
        PrincipalMapping::parse(rules).unwrap().name(subject)
    }

    #[test]
    fn the_first_rule_that_matches_names_the_user() {
        const SERVICE: &str = "CN=Duke,OU=ServiceUsers,O=Org,C=US";
        let rules = "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L, RULE:^CN=(.*?),OU=Admin.*$/$1@$2/U ,\
                     RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/,DEFAULT";
        for (subject, name) in [
            (SERVICE, "duke"),
            ("CN=kafka1, OU=SME", "kafka1"),
            ("CN=root,OU=Admin", "ROOT@$2"),
            ("O=nobody", "O=nobody"),
        ] {
            assert_eq!(mapped(rules, subject).as_deref(), Some(name), "{subject}");
        }
        assert_eq!(mapped("RULE:^CN=x$/y/", SERVICE), None);
        assert_eq!(mapped("DEFAULT", SERVICE).as_deref(), Some(SERVICE));
        assert_eq!(mapped("", SERVICE), None);
    }

    #[test]
    fn replacements_are_javas() {
        for (rules, subject, name) in [
            ("RULE:.*/x/", "abc", "xx"),
            (r"RULE:^(.)(.)$/$2\$$1/", "ab", "b$a"),
            (r"RULE:^a\/(?<rest>.*)$/<${rest}>/", "a/b", "<b>"),
            ("RULE:^(.*)$/$12/", "ab", "ab2"),
            ("RULE:^(.*)$/$0$0/", "ab", "abab"),
            ("RULE:CN=(.*?)/$1/", "CN=ab", "ab"),
        ] {
            assert_eq!(mapped(rules, subject).as_deref(), Some(name), "{rules}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for rules in [
            "default",
            "DEFAULT RULE",
            "RULE:a",
            "RULE:a/b",
            "RULE:a/b/X",
            "RULE:a/b/LU",
            "RULE:(/b/",
            "RULE:(?=a)/b/",
            r"RULE:(a)\1/b/",
            "RULE:a/$/",
            "RULE:a/${x}/",
            r"RULE:a/b\",
        ] {
            assert!(PrincipalMapping::parse(rules).is_err(), "{rules}");
        }
        assert!(PrincipalMapping::parse("DEFAULT,,DEFAULT,").is_ok());
    }
}
