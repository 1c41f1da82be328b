//! A decoded answer as a tree, whatever its type: read from what `{:?}` prints, so that one comparison does for all of
//! Kafka's messages.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::{Map, Number, Value};

/// The tree of what `printed` shows: structs and maps are objects, wrappers (`Some(x)`, `TopicName(x)`) are what is in
/// them, `None` is null, and what is no number, text or list is its text.
pub(super) fn parse(printed: &str) -> Result<Value> {
    let mut reader = Reader { rest: printed };
    let value = reader.value()?;
    if !reader.rest.trim().is_empty() {
        bail!("not understood: {}", reader.rest);
    }
    Ok(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> Result<Value> {
        if self.eat("[") {
            let mut items = Vec::new();
            while !self.eat("]") {
                items.push(self.value()?);
                self.eat(",");
            }
            return Ok(Value::Array(items));
        }
        if self.eat("{") {
            return self.fields();
        }
        if self.eat("b\"") || self.eat("\"") {
            return self.text();
        }
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_-+.".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            bail!("not understood: {rest}");
        }
        self.rest = rest;
        if self.rest.starts_with(" {") {
            self.eat("{");
            return self.fields();
        }
        if self.eat("(") {
            let inner = self.value()?;
            self.eat(",");
            if !self.eat(")") {
                bail!("more than one thing in {word}");
            }
            return Ok(inner);
        }
        Ok(match word {
            "None" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            word => word.parse::<i64>().map_or_else(|_| word.into(), |number| Value::Number(Number::from(number))),
        })
    }

    /// What follows an opening brace.
    fn fields(&mut self) -> Result<Value> {
        let mut fields = Map::new();
        while !self.eat("}") {
            let name = self.value()?;
            if !self.eat(":") {
                bail!("no value: {}", self.rest);
            }
            let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
            fields.insert(name, self.value()?);
            self.eat(",");
        }
        Ok(Value::Object(fields))
    }

    /// What follows an opening quote. Escapes stay as they are printed.
    fn text(&mut self) -> Result<Value> {
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match c {
                '"' if !escaped => {
                    let text = self.rest[..at].to_owned();
                    self.rest = &self.rest[at + 1..];
                    return Ok(text.into());
                }
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        bail!("a text without an end: {}", self.rest)
    }
}

/// The bytes that `bytes` prints as `printed`.
pub(super) fn bytes(printed: &str) -> Vec<u8> {
    let mut found = Vec::with_capacity(printed.len());
    let mut rest = printed.bytes();
    while let Some(byte) = rest.next() {
        found.push(match byte {
            b'\\' => match rest.next() {
                Some(b'0') => 0,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'x') => {
                    let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).unwrap_or(0) as u8;
                    digit() << 4 | digit()
                }
                other => other.unwrap_or(b'\\'),
            },
            plain => plain,
        });
    }
    found
}

/// Where the trees differ, one line each.
pub(super) fn differences(path: &str, kafka: &Value, varve: &Value, found: &mut Vec<String>) {
    match (kafka, varve) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
                let none = Value::from("(absent)");
                let (left, right) = (left.get(name).unwrap_or(&none), right.get(name).unwrap_or(&none));
                differences(&format!("{path}.{name}"), left, right, found);
            }
        }
        (Value::Array(left), Value::Array(right)) => match (labelled(left), labelled(right)) {
            (Some(left), Some(right)) => {
                for (label, value) in &left {
                    let path = format!("{path}[{label}]");
                    match right.get(label) {
                        Some(other) => differences(&path, value, other, found),
                        None => found.push(format!("{path}: only Kafka has {value}")),
                    }
                }
                let more = right.iter().filter(|(label, _)| !left.contains_key(*label));
                found.extend(more.map(|(label, value)| format!("{path}[{label}]: only Varve has {value}")));
            }
            _ if left.len() == right.len() => {
                for (at, (left, right)) in left.iter().zip(right).enumerate() {
                    differences(&format!("{path}[{at}]"), left, right, found);
                }
            }
            _ if left != right => found.push(format!("{path}: Kafka {kafka}, Varve {varve}")),
            _ => {}
        },
        (left, right) if left != right => found.push(format!("{path}: Kafka {left}, Varve {right}")),
        _ => {}
    }
}

/// The items of a list by what names them, if each has a name of its own.
fn labelled(items: &[Value]) -> Option<BTreeMap<String, &Value>> {
    const NAMES: [&str; 10] = [
        "name",
        "log_dir",
        "topic",
        "topic_id",
        "resource_name",
        "key",
        "group_id",
        "partition",
        "index",
        "partition_index",
    ];
    let labels = items.iter().map(|item| {
        let label = NAMES.iter().filter_map(|name| item.get(name).filter(|value| !value.is_null()));
        let label: Vec<String> = label.map(Value::to_string).collect();
        (!label.is_empty()).then(|| (label.join(" "), item))
    });
    let labels: BTreeMap<String, &Value> = labels.collect::<Option<_>>()?;
    (labels.len() == items.len()).then_some(labels)
}

/// The tree with every list in one order.
pub(super) fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(sorted).collect();
            items.sort_by_cached_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_survive_being_printed() {
        let all: Vec<u8> = (0..=255).collect();
        let printed = parse(&format!("{:?}", bytes::Bytes::from(all.clone()))).unwrap();
        assert_eq!(bytes(printed.as_str().unwrap()), all);
    }

    #[test]
    fn what_is_printed_becomes_a_tree() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "printed")]
        struct Answer {
            code: i16,
            name: Option<&'static str>,
            list: Vec<Wrapper>,
            missing: Option<i32>,
            tags: std::collections::BTreeMap<i32, bytes::Bytes>,
        }
        #[derive(Debug)]
        #[expect(dead_code, reason = "printed")]
        struct Wrapper(i64);
        let answer = Answer {
            code: -1,
            name: Some("a \"b\", c"),
            list: vec![Wrapper(1), Wrapper(2)],
            missing: None,
            tags: [(7, bytes::Bytes::from_static(b"x\x00"))].into(),
        };
        let tree = parse(&format!("{answer:?}")).unwrap();
        let expected = json!({
            "code": -1, "name": "a \\\"b\\\", c", "list": [1, 2], "missing": null, "tags": {"7": "x\\0"},
        });
        assert_eq!(tree, expected);
    }
}
