//! The properties format, as `java.util.Properties` reads it, in UTF-8.
//!
//! ```text
//!  # comment      ! comment         lines; blanks before anything on a line do not count
//!  name=value     name:value        the first = or : outside an escape, or the first blank, ends the name
//!  name value                       blanks around = or : do not count; blanks at the end of the value do
//!  name=a,\                         an odd number of backslashes at the end of a line joins the next one
//!       b                           without its leading blanks
//!  \t \n \r \f \uXXXX \<other>      escapes, in names and values; \<other> is the character itself
//! ```

use varve_metadata::config::ConfigError;

/// One property and the line that it began on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The name, unescaped.
    pub name: String,
    /// The value, unescaped.
    pub value: String,
    /// Line number, from 1.
    pub line: usize,
}

/// Reads a properties file. A name may occur more than once: the caller decides (Java's last one wins).
///
/// # Errors
/// [`ConfigError::Syntax`] for each line with a bad `\u` escape or without a name; `origin` says where it was read.
pub fn parse_properties(origin: &str, text: &str) -> Result<Vec<Property>, Vec<ConfigError>> {
    let mut properties = Vec::new();
    let mut errors = Vec::new();
    for (line, logical) in logical_lines(text) {
        let syntax = |problem: &str| ConfigError::Syntax { origin: origin.into(), line, problem: problem.into() };
        let (name, value) = split(&logical);
        match (unescape(name), unescape(value)) {
            (Ok(name), _) if name.is_empty() => errors.push(syntax("a value without a name")),
            (Ok(name), Ok(value)) => properties.push(Property { name, value, line }),
            (Err(problem), _) | (_, Err(problem)) => errors.push(syntax(problem)),
        }
    }
    if errors.is_empty() { Ok(properties) } else { Err(errors) }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0c')
}

/// Lines with continuations joined, comments and empty lines left out, each with the number of its first line.
fn logical_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    // `\r\n`, `\n` and a lone `\r` end a line, as in Java.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let natural: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < natural.len() {
            let first = at + 1;
            let start = natural[at].trim_start_matches(is_blank);
            at += 1;
            if start.is_empty() || start.starts_with(['#', '!']) {
                continue;
            }
            let mut logical = start.to_owned();
            while continues(&logical) {
                logical.pop();
                let Some(next) = natural.get(at) else { break };
                logical.push_str(next.trim_start_matches(is_blank));
                at += 1;
            }
            return Some((first, logical));
        }
        None
    })
}

fn continues(line: &str) -> bool {
    line.chars().rev().take_while(|character| *character == '\\').count() % 2 == 1
}

/// Name and value of a logical line, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|character: char| {
        let ends = !escaped && (is_blank(character) || character == '=' || character == ':');
        escaped = character == '\\' && !escaped;
        ends
    });
    let Some(end) = end else { return (line, "") };
    let rest = line[end..].trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], value.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut units: Vec<u16> = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            flush(&mut units, &mut out)?;
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                let valid = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| valid);
                units.push(unit.ok_or("\\u must be followed by four hexadecimal digits")?);
            }
            other => {
                flush(&mut units, &mut out)?;
                match other {
                    Some('t') => out.push('\t'),
                    Some('n') => out.push('\n'),
                    Some('r') => out.push('\r'),
                    Some('f') => out.push('\x0c'),
                    Some(other) => out.push(other),
                    None => {}
                }
            }
        }
    }
    flush(&mut units, &mut out)?;
    Ok(out)
}

/// `\u` escapes are UTF-16 units: characters beyond U+FFFF come as two of them.
fn flush(units: &mut Vec<u16>, out: &mut String) -> Result<(), &'static str> {
    out.push_str(&String::from_utf16(units).map_err(|_| "a \\u escape that is half of a character")?);
    units.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let properties = parse_properties("test", text).unwrap();
        properties.into_iter().map(|property| (property.name, property.value)).collect()
    }

    #[test]
    fn lines_are_read_as_java_reads_them() {
        // Expected values are what java.util.Properties gives for the same text.
        let cases: [(&str, &[(&str, &str)]); 18] = [
            ("a=b", &[("a", "b")]),
            ("a = b ", &[("a", "b ")]),
            ("  a:b", &[("a", "b")]),
            ("a b", &[("a", "b")]),
            ("a \t = \t b", &[("a", "b")]),
            ("a==b", &[("a", "=b")]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("# c\n! c\n\n  # c\na=1", &[("a", "1")]),
            ("a=1,\\\n   2,\\\n\t3\nb=4", &[("a", "1,2,3"), ("b", "4")]),
            ("a=1\\\\\nb=2", &[("a", "1\\"), ("b", "2")]),
            ("a=1\\\n# not a comment", &[("a", "1# not a comment")]),
            ("a\\ b\\=c=d", &[("a b=c", "d")]),
            ("a=\\t\\n\\u0041\\z", &[("a", "\t\nAz")]),
            ("a=\\ud83d\\ude00", &[("a", "😀")]),
            ("a=b\r\nc=d\re=f", &[("a", "b"), ("c", "d"), ("e", "f")]),
            ("path=C\\:\\\\x", &[("path", "C:\\x")]),
            ("a=1\\", &[("a", "1")]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn bad_lines_are_reported_with_their_number() {
        let errors = parse_properties("f", "a=1\nb=\\u12\n=x\nc=\\ud83d!").unwrap_err();
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "f, line 2: \\u must be followed by four hexadecimal digits",
                "f, line 3: a value without a name",
                "f, line 4: a \\u escape that is half of a character",
            ]
        );
    }
}
