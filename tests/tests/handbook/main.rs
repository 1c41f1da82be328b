//! Commands, settings and metrics of the documents: that they are there. What the commands do is rehearsed elsewhere
//! (`rehearsals.rs`); this finds the option that was renamed and the metric that is gone.

mod deployments;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use varve_tests::{node::varve, tools};

/// Every document for operators: its name and text.
fn documents() -> Result<Vec<(String, String)>> {
    let alone = ["README.md", "deploy/terraform/README.md", "localstack/README.md"];
    let mut files: Vec<PathBuf> = alone.iter().map(|file| tools::checkout().join(file)).collect();
    for folder in ["docs", "docs/operations"] {
        for entry in fs::read_dir(tools::checkout().join(folder))? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|kind| kind == "md"));
    files.sort();
    let read = |file: PathBuf| {
        let name = file.strip_prefix(tools::checkout())?.display().to_string();
        Ok((name, fs::read_to_string(&file)?))
    };
    files.into_iter().map(read).collect()
}

/// The blocks of one language in a text, without the indentation of the list that they stand in.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(String, usize, String)> = None;
    for line in text.lines() {
        let plain = line.trim_start();
        match (&mut open, plain.strip_prefix("```")) {
            (None, Some(kind)) => {
                let kind = kind.split_whitespace().next().unwrap_or_default().to_owned();
                open = Some((kind, line.len() - plain.len(), String::new()));
            }
            (Some(_), Some(_)) => {
                let (kind, _, block) = open.take().expect("it is open");
                if kind == language {
                    found.push(block);
                }
            }
            (Some((_, indent, block)), None) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// The commands of a block: words, without what a shell does with them.
fn commands(block: &str) -> Vec<Vec<String>> {
    let joined = block.replace("\\\n", " ");
    let mut all = Vec::new();
    for line in joined.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for character in line.chars().chain([' ']) {
            match (quote, character) {
                (Some(open), other) if other == open => quote = None,
                (None, '\'' | '"') => quote = Some(character),
                (None, ' ') if word.is_empty() => {}
                (None, ' ') => words.push(std::mem::take(&mut word)),
                (_, other) => word.push(other),
            }
        }
        for command in words.split(|word| ["|", "&&", "||", ";"].contains(&word.as_str())) {
            let mut plain: Vec<String> = Vec::new();
            let mut words = command.iter();
            while let Some(word) = words.next() {
                match word.as_str() {
                    // The file may stand apart from it.
                    "<" | ">" | ">>" => drop(words.next()),
                    other if other.starts_with(['<', '>']) => {}
                    other => plain.push(other.to_owned()),
                }
            }
            if !plain.is_empty() {
                all.push(plain);
            }
        }
    }
    all
}

fn all_commands() -> Result<Vec<(String, Vec<String>)>> {
    let mut all = Vec::new();
    for (name, text) in documents()? {
        for block in blocks(&text, "sh") {
            all.extend(commands(&block).into_iter().map(|command| (name.clone(), command)));
        }
    }
    Ok(all)
}

#[test]
fn blocks_and_commands_are_taken_apart() {
    let text = "a\n   ```sh\n   varve dump 'a b' \\\n     --deep | head <x > y\n   # no\n   ```\n```sql\nselect\n```\n";
    let blocks = blocks(text, "sh");
    assert_eq!(blocks, ["varve dump 'a b' \\\n  --deep | head <x > y\n# no\n"]);
    assert_eq!(commands(&blocks[0]), [vec!["varve", "dump", "a b", "--deep"], vec!["head"]]);
}

#[test]
fn every_command_of_varve_in_the_documents_is_understood() -> Result<()> {
    let mut seen = BTreeSet::new();
    for (place, command) in all_commands()? {
        if command[0] != "varve" || !seen.insert(command.clone()) {
            continue;
        }
        // Read from left to right: what is not known is refused before the help is shown.
        let output = varve()?.args(&command[1..]).arg("--help").output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{place}: {}\n{said}", command.join(" "));
    }
    ensure!(seen.len() > 15, "the commands are found: {seen:?}");
    Ok(())
}

#[test]
fn every_option_of_kafkas_tools_in_the_documents_is_one() -> Result<()> {
    let mut wanted: BTreeMap<String, BTreeMap<String, (String, Vec<String>)>> = BTreeMap::new();
    for (place, command) in all_commands()? {
        if !(command[0].starts_with("kafka-") && command[0].ends_with(".sh")) {
            continue;
        }
        let options = command.iter().filter(|word| word.starts_with("--"));
        let of_tool = wanted.entry(command[0].clone()).or_default();
        for option in options {
            let option = option.split('=').next().unwrap_or(option).to_owned();
            of_tool.entry(option).or_insert_with(|| (place.clone(), command.clone()));
        }
    }
    ensure!(wanted.len() > 8, "the tools are found: {wanted:?}");
    for (tool, options) in wanted {
        let help = |words: &[&str]| -> Result<String> {
            let output = tools::program(&tool)?.args(words).arg("--help").output()?;
            Ok([output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat())
        };
        let mut told = help(&[])?;
        for (option, (place, command)) in options {
            let is_told = |told: &str| {
                told.split(|character: char| !(character.is_ascii_alphanumeric() || character == '-'))
                    .any(|word| word == option)
            };
            if is_told(&told) {
                continue;
            }
            // Tools with commands tell the options of each on its own.
            if let Some(below) =
                command.iter().skip(1).find(|word| !word.starts_with('-') && !word.contains([':', '.', '/']))
            {
                told.push_str(&help(&[below])?);
            }
            ensure!(is_told(&told), "{place}: {tool} knows no {option}: {}", command.join(" "));
        }
    }
    Ok(())
}

#[test]
fn settings_in_the_handbook_are_valid_and_have_an_effect() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("server.properties");
    let mut count = 0;
    for (place, text) in documents()?.into_iter().filter(|(place, _)| place.starts_with("docs/operations")) {
        for block in blocks(&text, "properties") {
            fs::write(&file, &block)?;
            let said = tools::output_of(varve()?.args(["config", "check"]).arg(&file))
                .with_context(|| format!("{place}:\n{block}"))?;
            ensure!(!said.contains("warning"), "{place}: {said}");
            count += 1;
        }
        for block in blocks(&text, "yaml") {
            tools::yaml(&block).with_context(|| format!("{place}:\n{block}"))?;
        }
        for block in blocks(&text, "json") {
            serde_json::from_str::<serde_json::Value>(&block).with_context(|| format!("{place}:\n{block}"))?;
        }
    }
    ensure!(count >= 3, "the blocks are found");
    Ok(())
}

/// What stands in the text in backquotes and looks like `varve_something` or `varve.something`.
fn names(text: &str, begin: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for piece in text.split(begin).skip(1) {
        let is_part = |character: char| character.is_ascii_alphanumeric() || begin.ends_with(character);
        let end = piece.find(|character| !is_part(character)).unwrap_or(piece.len());
        let name = format!("{begin}{}", piece[..end].trim_end_matches(['.', '_']));
        // A family, as in `varve.metadata.etcd.*` or `varve_group_…`.
        if !piece[end..].starts_with(['*', '…']) {
            found.insert(name);
        }
    }
    found
}

#[test]
fn every_metric_and_setting_that_the_handbook_names_is_there() -> Result<()> {
    let known = |page: &str| fs::read_to_string(tools::checkout().join(page));
    let (metrics, settings) = (known("docs/metrics.md")?, known("docs/configuration.md")?);
    // Crates and the target of denials in the log are called alike.
    let others = tools::output_of(varve()?.args(["config", "docs"]))?;
    ensure!(others == settings, "docs/configuration.md is what is printed");
    let mut wrong = Vec::new();
    for (place, text) in documents()?.into_iter().filter(|(place, _)| place.starts_with("docs/operations")) {
        // Settings of other programs, which may have a cluster called varve.
        let text = blocks(&text, "text").iter().fold(text.clone(), |text, block| text.replace(block.as_str(), ""));
        for metric in names(&text, "varve_") {
            let is_known = metrics.contains(&format!("`{metric}`")) || metric == "varve_audit" || metric == "varve_0";
            if !is_known {
                wrong.push(format!("{place}: {metric}"));
            }
        }
        for setting in names(&text, "varve.") {
            let is_file = [".service", ".sh", ".md", ".yaml"].iter().any(|end| setting.ends_with(end));
            if !settings.contains(&format!("#### `{setting}`")) && !is_file {
                wrong.push(format!("{place}: {setting}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "neither metrics nor settings:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn mirrors_in_the_documents_copy_offsets_of_groups_as_often_as_the_text_counts_on() -> Result<()> {
    let mut count = 0;
    for (place, text) in documents()? {
        for block in blocks(&text, "text").iter().filter(|block| block.contains("sync.group.offsets.enabled = true")) {
            // Unless told otherwise offsets are put right once a minute, and new groups are looked for every ten.
            for setting in ["emit.checkpoints", "sync.group.offsets", "refresh.groups"] {
                let setting = format!("{setting}.interval.seconds = ");
                ensure!(block.contains(&setting), "{place} has no {setting}");
            }
            count += 1;
        }
    }
    ensure!(count == 2, "the blocks are found: {count}");
    Ok(())
}

#[test]
fn the_handbook_shows_what_the_unit_of_etcd_reads_and_etcd_knows_it() -> Result<()> {
    let page = fs::read_to_string(tools::checkout().join("docs/operations/install.md"))?;
    let unit = fs::read_to_string(tools::checkout().join("deploy/systemd/varve-etcd.service"))?;
    let help = tools::output_of(tools::program("etcd")?.arg("--help"))?;
    let blocks = blocks(&page, "ini");
    let block = blocks.iter().find(|block| block.starts_with("ETCD_NAME=")).context("an environment file")?;
    let shown: BTreeSet<&str> = block.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // The unit's remark names them, those of TLS last.
    let (plain, _) = unit.split_once("and for TLS").context("what the unit reads")?;
    let wanted = plain.split(|character: char| !(character.is_ascii_uppercase() || character == '_'));
    let wanted: BTreeSet<&str> = wanted.filter(|word| word.starts_with("ETCD_")).collect();
    ensure!(shown == wanted, "{shown:?} and not {wanted:?}");
    for name in shown {
        let flag = name.replacen("ETCD_", "--", 1).replace('_', "-").to_lowercase();
        ensure!(help.contains(&flag), "etcd knows no {flag}");
    }
    Ok(())
}
