//! docs/compatibility.md, printed from what was compared and from what is meant to differ.

use std::{collections::BTreeMap, fmt::Write, fs};

use anyhow::{Context, Result, ensure};
use kafka_protocol::messages::ApiKey;
use serde_json::Value;
use varve_tests::{differential::Pair, tools::checkout};

use super::differences::MEANT;

const HEAD: &str = "\
# Where Varve answers otherwise than Apache Kafka

`tests/tests/conformance` sends the same requests to Apache Kafka 4.3 and to Varve, valid, at the bounds and malformed, in
every version that is advertised, and compares the answers field by field. These differences are meant, and every other one
is a bug: the test fails for it, and also when one of these is no more. It prints this page:
`VARVE_COMPATIBILITY=write cargo test -p varve-tests --test conformance`.

";

const REQUESTS: &str = "
## What was compared

Each request that Varve advertises is advertised in the versions of Kafka 4.3; what is not served is not advertised. Beside
the scripts' requests, each of these versions was sent cut short, and those that change nothing with a byte of their body
changed: what is no request any more ends the connection with both.

| Request | Versions |
|---|---|
";

const UNSERVED: &str = "Advertised by Kafka 4.3 to clients, and not served by Varve: ";

/// Versions by key, as an ApiVersions answer has them; those from which a version is answered and not only listed.
pub(crate) type Advertised = BTreeMap<i16, (i16, i16)>;

/// What an ApiVersions answer advertises.
pub(crate) fn advertised(answer: &Value) -> Result<Advertised> {
    let keys = answer["api_keys"].as_array().context("keys")?.iter();
    let each = keys.map(|key| {
        let number = |name: &str| Ok::<_, anyhow::Error>(i16::try_from(key[name].as_i64().context("a number")?)?);
        let (key, min, max) = (number("api_key")?, number("min_version")?, number("max_version")?);
        // Produce is listed from 0 on, for old librdkafka alone (KAFKA-18659), and answered from 3 on.
        let min = if key == ApiKey::Produce as i16 { min.max(3) } else { min };
        Ok((key, (min, max)))
    });
    each.collect()
}

/// Holds the page to the results, or writes it.
///
/// # Errors
/// A version that is advertised was not compared; the page says something else.
pub(crate) fn check(pair: &Pair, kafkas: &Advertised, varves: &Advertised) -> Result<()> {
    let holes: Vec<String> = varves
        .iter()
        .flat_map(|(key, (min, max))| (*min..=*max).map(move |version| (*key, version)))
        .filter(|wanted| !pair.compared.contains(wanted))
        .map(|(key, version)| format!("{} {version}", name(key)))
        .collect();
    ensure!(holes.is_empty(), "advertised, but asked in no script: {}", holes.join(", "));
    let printed = printed(kafkas, varves)?;
    let path = checkout().join("docs/compatibility.md");
    if std::env::var("VARVE_COMPATIBILITY").is_ok_and(|what| what == "write") {
        return Ok(fs::write(path, printed)?);
    }
    let page = fs::read_to_string(path)?;
    ensure!(page == printed, "docs/compatibility.md is not what was found; VARVE_COMPATIBILITY=write prints it anew");
    Ok(())
}

fn printed(kafkas: &Advertised, varves: &Advertised) -> Result<String> {
    let mut page = HEAD.to_owned();
    writeln!(page, "| Where | Varve | Why |\n|---|---|---|")?;
    for meant in MEANT {
        writeln!(page, "| {} | {} | {} |", meant.place, meant.varve, meant.why)?;
    }
    page += REQUESTS;
    for (key, (min, max)) in varves {
        let versions = if min == max { min.to_string() } else { format!("{min} to {max}") };
        writeln!(page, "| {} | {versions} |", name(*key))?;
    }
    let unserved: Vec<String> = kafkas.keys().filter(|key| !varves.contains_key(key)).map(|key| name(*key)).collect();
    if !unserved.is_empty() {
        writeln!(page, "\n{}", wrapped(&format!("{UNSERVED}{}.", unserved.join(", "))))?;
    }
    Ok(page)
}

/// Lines of at most 120 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= 120 => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn name(key: i16) -> String {
    match key {
        // Newer than what decodes the answers.
        88 => "StreamsGroupHeartbeat".to_owned(),
        89 => "StreamsGroupDescribe".to_owned(),
        key => ApiKey::try_from(key).map_or_else(|_| format!("request {key}"), |key| format!("{key:?}")),
    }
}
