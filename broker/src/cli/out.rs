//! What subcommands print: one thing per line, as `name: value` pairs for people or as one JSON object for programs.

use std::io::{self, BufWriter, Stdout, Write};

use serde_json::Value;

/// Standard output, in one of two forms. Field names are the same in both.
#[derive(Debug)]
pub(super) struct Out<W: Write = BufWriter<Stdout>> {
    json: bool,
    sink: W,
}

/// A value of a line.
pub(super) type Field = (&'static str, Value);

impl Out {
    pub(super) fn new(json: bool) -> Out {
        Out { json, sink: BufWriter::with_capacity(1 << 16, io::stdout()) }
    }
}

impl<W: Write> Out<W> {
    #[cfg(test)]
    pub(super) fn to(sink: W, json: bool) -> Out<W> {
        Out { json, sink }
    }

    /// One line. `indent` nests it under the line before, for people.
    pub(super) fn line(&mut self, indent: usize, fields: &[Field]) -> io::Result<()> {
        if self.json {
            // By hand: a map would forget the order of the fields.
            let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            return writeln!(self.sink, "{{{}}}", pairs.join(","));
        }
        let shown = fields.iter().filter(|(_, value)| !value.is_null());
        let pairs: Vec<String> = shown.map(|(name, value)| format!("{name}: {}", plain(value))).collect();
        writeln!(self.sink, "{:indent$}{}", "", pairs.join("  "), indent = indent * 2)
    }

    /// What was printed so far goes out.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Bytes of a key, value or header: as text if they are UTF-8, else in hexadecimal; `null` stays null.
pub(super) fn bytes(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}

/// Whether printing failed only because nobody reads on (`| head`).
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printed(json: bool) -> String {
        let mut out = Out::to(Vec::new(), json);
        let key = bytes(Some(b"\xff\x00"));
        out.line(1, &[("offset", json!(7)), ("codec", json!("zstd")), ("none", Value::Null), ("key", key)]).unwrap();
        String::from_utf8(out.finish().unwrap()).unwrap()
    }

    #[test]
    fn a_line_has_the_same_fields_for_people_and_for_programs() {
        assert_eq!(printed(false), "  offset: 7  codec: zstd  key: {\"hex\":\"ff00\"}\n");
        assert_eq!(printed(true), "{\"offset\":7,\"codec\":\"zstd\",\"none\":null,\"key\":{\"hex\":\"ff00\"}}\n");
    }
}
