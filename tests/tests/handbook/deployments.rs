//! What the documents call things by that the chart, the Terraform module and the units make: that those are called so.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::tools;

use super::{blocks, commands, documents};

/// Commands of a program: those of blocks, and those that a sentence names.
fn commands_of(programs: &[&str]) -> Result<Vec<(String, Vec<String>)>> {
    let mut all = Vec::new();
    for (place, text) in documents()? {
        let (mut prose, mut found) = (text.clone(), Vec::new());
        for block in blocks(&text, "sh") {
            found.extend(commands(&block));
        }
        for (at, fence) in text.split("```").enumerate() {
            if at % 2 == 1 {
                prose = prose.replace(fence, "");
            }
        }
        for named in prose.replace('\n', " ").split('`').skip(1).step_by(2) {
            found.extend(commands(named).into_iter().filter(|words| words.len() > 1));
        }
        let ours = found.into_iter().filter(|words| programs.contains(&words[0].as_str()));
        all.extend(ours.map(|words| (place.clone(), words)));
    }
    Ok(all)
}

/// The values of an option, as two words or as one.
fn values_of<'a>(words: &'a [String], option: &'a str) -> impl Iterator<Item = &'a str> {
    let apart = words.windows(2).filter(move |pair| pair[0] == option).map(|pair| pair[1].as_str());
    apart.chain(words.iter().filter_map(move |word| word.strip_prefix(option)?.strip_prefix('=')))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(tools::checkout().join(path)).with_context(|| path.to_owned())
}

/// Whether the chart's schema has that value.
fn is_value<'a>(schema: &Value, mut path: impl Iterator<Item = &'a str>) -> bool {
    let Some(first) = path.next() else { return true };
    match schema["properties"].as_object() {
        Some(properties) => properties.get(first).is_some_and(|below| is_value(below, path)),
        // Whatever somebody wants: annotations, settings of the node.
        None => schema["type"] == "object",
    }
}

/// Every value in a file of values, by where it is.
fn paths(value: &Value, above: &str, found: &mut Vec<String>) {
    match value.as_object() {
        Some(object) => object.iter().for_each(|(name, below)| paths(below, &format!("{above}{name}."), found)),
        None => found.push(above.trim_end_matches('.').to_owned()),
    }
}

#[test]
fn values_of_the_chart_that_the_documents_set_or_name_are_there() -> Result<()> {
    let schema: Value = serde_json::from_str(&read("deploy/helm/varve/values.schema.json")?)?;
    let is_value = |path: &str| is_value(&schema, path.split('.'));
    let mut known: BTreeSet<&str> =
        schema["properties"].as_object().context("properties")?.keys().map(String::as_str).collect();
    // What other programs' files have as well.
    known.retain(|name| !["global", "config", "metrics", "image"].contains(name));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (place, words) in commands_of(&["helm"])? {
        for set in ["--set", "--set-string", "--set-json"].iter().flat_map(|option| values_of(&words, option)) {
            let name = set.split('=').next().unwrap_or(set);
            if !is_value(name) {
                wrong.push(format!("{place}: --set {name}"));
            }
        }
        let chart = words.iter().find(|word| word.contains("helm/"));
        ensure!(
            chart.is_none_or(|chart| tools::checkout().join(chart).join("Chart.yaml").is_file()),
            "{place}: {words:?}"
        );
        count += usize::from(chart.is_some());
    }
    ensure!(count >= 3, "the commands are found");
    let mut in_files = 0;
    for (place, text) in documents()?.into_iter().filter(|(place, _)| place.starts_with("docs/operations")) {
        for block in blocks(&text, "yaml") {
            for file in tools::yaml(&block)? {
                let is_of_chart =
                    file.as_object().is_some_and(|all| all.keys().any(|name| known.contains(name.as_str())));
                let mut all = Vec::new();
                paths(&file, "", &mut all);
                all.retain(|path| is_of_chart && !is_value(path));
                wrong.extend(all.iter().map(|path| format!("{place}: {path} in a file of values")));
                in_files += usize::from(is_of_chart);
            }
        }
        for named in text.replace('\n', " ").split('`').skip(1).step_by(2) {
            let named = named.split(':').next().unwrap_or(named);
            let (first, rest) = named.split_once('.').unwrap_or((named, ""));
            let is_name = !rest.is_empty() && named.chars().all(|one| one.is_ascii_alphanumeric() || one == '.');
            if is_name && known.contains(first) && !is_value(named) {
                wrong.push(format!("{place}: `{named}`"));
            }
        }
    }
    ensure!(in_files >= 1, "files of values are found");
    ensure!(wrong.is_empty(), "no values of the chart:\n{}", wrong.join("\n"));
    Ok(())
}

/// What `kubectl` is told to look at: kind and name.
fn looked_at(words: &[String]) -> Vec<(&str, &str)> {
    const KINDS: [&str; 5] = ["pod", "statefulset", "job", "persistentvolumeclaim", "service"];
    let apart = words.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str()));
    let joined = words.iter().filter_map(|word| word.split_once('/'));
    apart.chain(joined).filter(|(kind, name)| KINDS.contains(kind) && !name.starts_with('-')).collect()
}

#[test]
fn what_kubectl_is_told_to_look_at_is_what_the_chart_makes() -> Result<()> {
    let mut helm = tools::program("helm")?;
    let chart = tools::checkout().join("deploy/helm/varve");
    helm.args(["template", "varve"]).arg(&chart).args(["--kube-version", "1.37.0", "--values"]);
    let objects = tools::yaml(&tools::output_of(helm.arg(chart.join("ci/cluster.yaml")))?)?;
    let is_made = |kind: &str, name: &str| {
        objects.iter().any(|one| {
            one["kind"].as_str().is_some_and(|of| of.eq_ignore_ascii_case(kind)) && one["metadata"]["name"] == name
        })
    };
    // Those that a StatefulSet makes have its name and a number.
    let is_numbered = |name: &str, begin: &str| {
        let set = name.strip_prefix(begin).and_then(|name| name.rsplit_once('-'));
        set.is_some_and(|(set, number)| number.parse::<u32>().is_ok() && is_made("StatefulSet", set))
    };
    let mut count = 0;
    for (place, words) in commands_of(&["kubectl"])? {
        for (kind, name) in looked_at(&words) {
            let is_there = match kind {
                "pod" => is_numbered(name, ""),
                "persistentvolumeclaim" => is_numbered(name, "data-"),
                other => is_made(other, name),
            };
            ensure!(is_there, "{place}: the chart makes no {kind} {name}: {}", words.join(" "));
            count += 1;
        }
    }
    ensure!(count >= 6, "the commands are found");
    Ok(())
}

#[test]
fn units_that_the_documents_name_are_those_that_are_installed() -> Result<()> {
    let places = ["deploy/systemd", "deploy/terraform/instance"].map(|folder| tools::checkout().join(folder));
    let is_there = |unit: &str| {
        // That of Debian's package, which is kept from starting.
        if unit == "etcd" {
            return true;
        }
        let file = if Path::new(unit).extension().is_some() { unit.to_owned() } else { format!("{unit}.service") };
        places.iter().any(|place| place.join(&file).is_file())
    };
    let mut count = 0;
    for (place, words) in commands_of(&["systemctl", "journalctl"])? {
        let units: Vec<&str> = match words[0].as_str() {
            "systemctl" => {
                words[1..].iter().map(String::as_str).filter(|word| !word.starts_with('-')).skip(1).collect()
            }
            _ => ["-u", "--unit"].iter().flat_map(|option| values_of(&words, option)).collect(),
        };
        for unit in units {
            ensure!(is_there(unit), "{place}: there is no unit {unit}: {}", words.join(" "));
            count += 1;
        }
    }
    ensure!(count >= 6, "the commands are found");
    Ok(())
}

/// What a module declares with that word, as in `variable "name"`.
fn declared(text: &str, word: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(" \""));
    lines.filter_map(|line| Some(line.split_once("\" {")?.0.replace("\" \"", "."))).collect()
}

#[test]
fn what_the_documents_call_the_modules_is_the_modules() -> Result<()> {
    let mut module = String::new();
    for entry in fs::read_dir(tools::checkout().join("deploy/terraform"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|kind| kind == "tf") {
            module.push_str(&fs::read_to_string(file)?);
        }
    }
    let [variables, outputs, resources] = ["variable", "output", "resource"].map(|word| declared(&module, word));
    ensure!(variables.len() > 10 && outputs.len() > 3 && resources.len() > 20, "declarations are found");
    let mut count = 0;
    for (place, words) in commands_of(&["terraform"])? {
        let addresses = values_of(&words, "-replace").chain(values_of(&words, "-target"));
        for address in addresses.filter_map(|address| address.strip_prefix("module.varve.")?.split('[').next()) {
            ensure!(resources.contains(address), "{place}: the module has no {address}: {}", words.join(" "));
            count += 1;
        }
    }
    for (place, text) in documents()? {
        // A command, or a part of a word of another one.
        let is_part = |one: char| one.is_ascii_lowercase() || one == '_';
        for rest in text.split(" output -raw ").skip(1) {
            let name = rest.split(|one| !is_part(one)).next().unwrap_or_default();
            ensure!(outputs.contains(name), "{place}: the module has no output {name}");
            count += 1;
        }
        for block in blocks(&text, "hcl").iter().filter(|block| block.contains("module \"varve\" {")) {
            // Two spaces deep: what is deeper is part of a value.
            let set = block.lines().filter_map(|line| line.strip_prefix("  ")?.split_once('='));
            for name in set.map(|(name, _)| name.trim_end()).filter(|name| !name.starts_with(' ')) {
                let is_terraforms = ["source", "version", "providers", "count", "for_each"].contains(&name);
                ensure!(is_terraforms || variables.contains(name), "{place}: the module has no variable {name}");
                count += 1;
            }
        }
    }
    ensure!(count >= 5, "they are found");
    for (place, words) in commands_of(&["aws"])? {
        for group in values_of(&words, "--auto-scaling-group-name") {
            let plain = group.strip_prefix("varve-").context("the module's default name")?;
            let plain = plain.trim_end_matches(|one: char| one.is_ascii_digit());
            ensure!(module.contains(&format!("\"{plain}$")), "{place}: there is no group {group}");
        }
    }
    Ok(())
}
