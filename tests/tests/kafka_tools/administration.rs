//! docs/administration.md, run as it stands.

use std::fs;

use anyhow::{Context, Result, ensure};
use varve_metadata::config::Codec;
use varve_tests::{client::Client, kafka_tools::KafkaTools, node::Node};

use super::{now, produce};

/// The fenced blocks of a document: what stands behind the fence, and the lines.
fn blocks(document: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut is_open = false;
    for line in document.lines() {
        match (line.strip_prefix("```"), is_open) {
            (Some(kind), false) => {
                found.push((kind, Vec::new()));
                is_open = true;
            }
            (Some(_), true) => is_open = false,
            (None, true) => found.last_mut().into_iter().for_each(|(_, lines)| lines.push(line)),
            (None, false) => {}
        }
    }
    found
}

#[test]
fn every_command_of_the_document_works() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dirs = ["a", "b"].map(|name| folder.path().join(name));
    let setting = format!("log.dirs={},{}", dirs[0].display(), dirs[1].display());
    let node = Node::start(folder.path(), &[&setting, "node.id=1", "advertised.listeners=PLAINTEXT://127.0.0.1:0"])?;
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;
    produce(&node, "orders", 0, Codec::None, &[(now(), "one")])?;
    let kafka = KafkaTools::of(&node);
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/administration.md"))?;
    let mut commands = 0;
    for (kind, lines) in blocks(&document) {
        if let Some(file) = kind.strip_prefix("json ") {
            let text = lines.join("\n").replace("/srv/b", &dirs[1].display().to_string());
            fs::write(folder.path().join(file), text)?;
            continue;
        }
        for line in lines {
            let file = folder.path().join("moves.json");
            let line = line.replace("localhost:9092", "NODE").replace("moves.json", &file.display().to_string());
            kafka.run(&line).with_context(|| line.clone())?;
            commands += 1;
        }
    }
    ensure!(commands > 15, "{commands} commands found");
    node.stop()
}
