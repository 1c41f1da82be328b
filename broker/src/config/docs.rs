//! The reference: every setting, printed from its definition.

use std::fmt::Write as _;

use varve_metadata::config::{ConfigDef, Treatment, Unit, Update, topic_table};

use super::definitions::{CHAPTERS, prefixes};

/// The reference of all settings, as Markdown. The same for every run: it stands in the repository too.
pub fn reference() -> String {
    let mut out = String::from(INTRODUCTION);
    section(&mut out, "Broker settings");
    for (title, settings) in CHAPTERS {
        let _ = writeln!(out, "### {title}\n");
        for definition in settings.iter().filter(|definition| !definition.internal) {
            entry(&mut out, definition);
        }
    }
    let _ = writeln!(out, "### Families of names\n");
    for family in prefixes() {
        let _ = writeln!(out, "- `{}`: {} {}", family.pattern, family.doc, treatment(family.treatment));
    }
    out.push('\n');
    section(&mut out, "Topic settings");
    for definition in topic_table().iter().filter(|definition| !definition.internal) {
        entry(&mut out, definition);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Printed by `varve config docs`; a test holds the two equal. Change the definitions, not this file. -->

`varve` runs without any configuration: on loopback, with its data in `./varve-data`. Settings are given in a file in
Kafka's properties format (`varve --config FILE`), over it in environment variables (`VARVE_` and the name in upper
case with dots as underscores; the prefix `varve.` may be left out, so `varve.object.store.url` is
`VARVE_OBJECT_STORE_URL`), and over both on the command line (`--override name=value`).

Every name that Kafka 4.3 knows is known here, and is honoured, or accepted with one warning that says why it has no
effect, or refused where ignoring it would break what it promises (its default is always accepted). Names of Varve's
own begin with `varve.`. `varve config check FILE` reports everything that is wrong with a file at once.

";

fn section(out: &mut String, title: &str) {
    let _ = writeln!(out, "## {title}\n");
}

fn entry(out: &mut String, definition: &ConfigDef) {
    let _ = writeln!(out, "#### `{}`\n\n{}\n", definition.name, definition.doc);
    let default = match definition.default {
        None => "unset".to_owned(),
        Some("") => "empty".to_owned(),
        Some(value) => format!("`{value}`"),
    };
    let mut facts = vec![definition.kind.allowed(), format!("default {default}")];
    if !definition.synonyms.is_empty() {
        let names = definition.synonyms.iter().map(|synonym| match synonym.unit {
            Unit::Same => format!("`{}`", synonym.name),
            Unit::Minutes => format!("`{}` (minutes)", synonym.name),
            Unit::Hours => format!("`{}` (hours)", synonym.name),
        });
        facts.push(format!("broker default {}", names.collect::<Vec<_>>().join(", then ")));
    }
    let _ = writeln!(out, "{}.{}\n", capitalised(&facts.join("; ")), after(definition));
}

fn after(definition: &ConfigDef) -> String {
    match (definition.treatment, definition.update) {
        (Treatment::Honoured, Update::Dynamic | Update::Restart) => String::new(),
        (other, _) => format!(" {}", treatment(other)),
    }
}

fn treatment(treatment: Treatment) -> String {
    match treatment {
        Treatment::Honoured => String::new(),
        Treatment::NoEffect { why } => format!("**No effect**: {why}."),
        Treatment::Refused { why } => format!("**Refused**: {why}."),
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_repository_is_the_one_that_is_printed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(checked_in == reference(), "print it anew: varve config docs > docs/configuration.md");
    }
}
