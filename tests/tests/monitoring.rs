//! Metrics, alerts and dashboards: that they are there, mean each other, and fire when they should.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use varve_metadata::config::Codec;
use varve_tests::{
    client::{Client, FetchSpec},
    lines::Lines,
    node::{Node, until},
    tools,
};

const RULES: &str = "deploy/monitoring/rules.yaml";

/// A family of docs/metrics.md.
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

/// docs/metrics.md, which a unit test holds to the code.
fn reference() -> Result<BTreeMap<String, Family>> {
    let text = fs::read_to_string(tools::checkout().join("docs/metrics.md"))?;
    let rows = text.lines().filter(|line| line.starts_with("| `varve_") || line.starts_with("| `process_"));
    let families = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else { bail!("{row}") };
        let labels =
            labels.split(", ").map(|label| label.trim_matches('`').to_owned()).filter(|label| !label.is_empty());
        Ok((name.trim_matches('`').to_owned(), Family { kind: kind.to_owned(), labels: labels.collect() }))
    });
    families.collect()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(tools::checkout().join(path)).with_context(|| path.to_owned())
}

/// The rules of deploy/monitoring.
fn rules() -> Result<Vec<Value>> {
    let documents = tools::yaml(&read(RULES)?)?;
    let groups = documents[0]["groups"].as_array().context("groups")?;
    Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}

/// Where each dashboard asks for something: which file and panel, and the question.
fn questions() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(tools::checkout().join("deploy/monitoring/dashboards"))? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| name.clone())?;
        let panels = dashboard["panels"].as_array().with_context(|| format!("{name} has no panels"))?;
        for panel in panels {
            let title = format!("{name}: {}", text(panel, "title")?);
            for target in panel["targets"].as_array().with_context(|| title.clone())? {
                found.push((title.clone(), text(target, "expr")?.to_owned()));
            }
        }
        for variable in dashboard["templating"]["list"].as_array().context("variables")? {
            if text(variable, "type")? == "query" {
                found.push((format!("{name}: ${}", text(variable, "name")?), text(variable, "definition")?.to_owned()));
            }
        }
    }
    ensure!(found.len() > 40, "the dashboards are there");
    Ok(found)
}

/// Metrics in a question with the labels that it picks them by, and the labels that it groups by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Uses {
    metrics: Vec<(String, Vec<String>)>,
    groups: Vec<String>,
}

fn uses(question: &str) -> Uses {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut uses = Uses::default();
    let mut rest = question;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|character| !is_word(character)).unwrap_or(word.len());
        let (word, behind) = word.split_at(end);
        rest = behind;
        if word.starts_with("varve_") || word.starts_with("process_") || word == "up" {
            let mut labels = Vec::new();
            if let Some((picked, behind)) = behind.strip_prefix('{').and_then(|picked| picked.split_once('}')) {
                let each = picked.split(',').filter_map(|one| one.trim().split(['=', '!', '~']).next());
                labels.extend(each.filter(|label| !label.is_empty()).map(str::to_owned));
                rest = behind;
            }
            uses.metrics.push((word.to_owned(), labels));
        } else if ["by", "without", "on", "ignoring"].contains(&word)
            && let Some((listed, behind)) = behind.trim_start().strip_prefix('(').and_then(|list| list.split_once(')'))
        {
            uses.groups.extend(listed.split(',').map(|label| label.trim().to_owned()));
            rest = behind;
        } else if word == "label_values"
            && let Some((_, label)) = behind.rsplit_once(',')
        {
            uses.groups.push(label.trim_end_matches(')').trim().to_owned());
        }
    }
    uses
}

/// What is wrong with a question: metrics that are not there, labels that those do not have.
fn faults(question: &str, reference: &BTreeMap<String, Family>) -> Vec<String> {
    let (mut faults, uses) = (Vec::new(), uses(question));
    // Prometheus' own.
    let mut known: BTreeSet<String> = ["job", "instance"].map(str::to_owned).into();
    for (metric, labels) in uses.metrics {
        if metric == "up" {
            continue;
        }
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| Some((metric.strip_suffix(part)?, *part)));
        let of_histogram =
            part.filter(|(family, _)| reference.get(*family).is_some_and(|found| found.kind == "histogram"));
        let family = reference.get(of_histogram.map_or(metric.as_str(), |(family, _)| family));
        let Some(family) = family.filter(|family| of_histogram.is_some() || family.kind != "histogram") else {
            faults.push(format!("no metric {metric}"));
            continue;
        };
        let mut own = family.labels.clone();
        own.extend(["job".to_owned(), "instance".to_owned()]);
        if of_histogram.is_some_and(|(_, part)| part == "_bucket") {
            own.insert("le".to_owned());
        }
        faults.extend(
            labels.iter().filter(|label| !own.contains(*label)).map(|label| format!("{metric} has no {label}")),
        );
        known.extend(own);
    }
    faults
        .extend(uses.groups.iter().filter(|label| !known.contains(*label)).map(|label| format!("nothing has {label}")));
    faults
}

#[test]
fn questions_are_taken_apart() {
    let asked = r#"max by (group, topic) (rate(varve_a_total{job="x", step!~"b"}[5m])) / on (topic) up"#;
    let (metrics, groups) = (uses(asked).metrics, uses(asked).groups);
    assert_eq!(metrics[0], ("varve_a_total".to_owned(), vec!["job".to_owned(), "step".to_owned()]));
    assert_eq!((metrics.len(), groups.join(" ")), (2, "group topic topic".to_owned()));
    assert_eq!(uses("label_values(varve_a{job=\"x\"}, topic)").groups, ["topic"]);
    let reference = BTreeMap::from([(
        "varve_a_seconds".to_owned(),
        Family { kind: "histogram".to_owned(), labels: BTreeSet::from(["api".to_owned()]) },
    )]);
    assert_eq!(faults(r#"sum by (le) (varve_a_seconds_bucket{api="x"})"#, &reference), Vec::<String>::new());
    assert_eq!(faults("varve_a_seconds", &reference), ["no metric varve_a_seconds"]);
    assert_eq!(faults("sum by (topic) (varve_a_seconds_sum{kind=\"x\"})", &reference).len(), 2);
}

#[test]
fn every_alert_and_dashboard_asks_for_metrics_and_labels_that_exist() -> Result<()> {
    let reference = reference()?;
    let mut asked = questions()?;
    for rule in rules()? {
        asked.push((text(&rule, "alert")?.to_owned(), text(&rule, "expr")?.to_owned()));
    }
    let wrong: Vec<String> = asked
        .iter()
        .flat_map(|(place, question)| {
            faults(question, &reference).into_iter().map(move |fault| format!("{place}: {fault}"))
        })
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_alert_is_told_of_and_has_a_series_that_it_fires_on_and_one_that_it_does_not() -> Result<()> {
    let alerts: Vec<String> = rules()?.iter().map(|rule| Ok(text(rule, "alert")?.to_owned())).collect::<Result<_>>()?;
    let tests = tools::yaml(&read("deploy/monitoring/rules_test.yaml")?)?;
    let names: BTreeSet<&str> =
        tests[0]["tests"].as_array().context("tests")?.iter().filter_map(|test| test["name"].as_str()).collect();
    let page = read("docs/operations/alerts.md")?;
    for alert in &alerts {
        ensure!(
            names.contains(&*format!("{alert} fires")) && names.contains(&*format!("{alert} is silent")),
            "{alert} has no test"
        );
        ensure!(page.contains(&format!("\n### {alert}\n")), "docs/operations/alerts.md does not tell of {alert}");
    }
    let told = page.lines().filter_map(|line| line.strip_prefix("### "));
    let gone: Vec<&str> = told.filter(|name| !alerts.iter().any(|alert| alert == name)).collect();
    ensure!(gone.is_empty(), "docs/operations/alerts.md tells of {gone:?}, which are no alerts");
    Ok(())
}

#[test]
fn promtool_finds_the_rules_sound_and_each_alert_fires_when_it_should() -> Result<()> {
    let folder = tools::checkout().join("deploy/monitoring");
    tools::output_of(tools::program("promtool")?.current_dir(&folder).args([
        "check",
        "rules",
        "--lint-fatal",
        "rules.yaml",
    ]))?;
    tools::output_of(tools::program("promtool")?.current_dir(&folder).args(["test", "rules", "rules_test.yaml"]))?;
    ensure!(
        read(RULES)? == read("deploy/helm/varve/files/rules.yaml")?,
        "the chart has other rules: copy {RULES} there"
    );
    Ok(())
}

#[test]
fn a_nodes_page_and_the_reference_tell_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings =
        ["authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS"];
    let node = Node::start(folder.path(), &settings)?;
    let mut client = Client::connect(node.address)?;
    client.create_topic("orders", 1, &[])?;
    for batch in Lines::load(None)?.batches(Codec::Zstd, 16 << 10, 64 << 10)? {
        client.produce("orders", 0, batch)?;
    }
    client.fetch(&FetchSpec { topic: "orders", partition: 0, max_bytes: 1 << 20, max_wait_ms: 100 }, 0)?;
    let reference = reference()?;
    // What a request took is noted after its answer, and what background work has left to do when it looks.
    until("the page and the reference tell the same", || tell_the_same(&node.http_get("/metrics")?, &reference))?;
    node.stop()
}

fn tell_the_same(page: &str, reference: &BTreeMap<String, Family>) -> Result<()> {
    let mut shown = BTreeSet::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let family = reference.get(name).with_context(|| format!("docs/metrics.md lacks {name}"))?;
            ensure!(family.kind == kind, "{name} is a {kind}");
            shown.insert(name.to_owned());
        } else if !line.starts_with('#') {
            let wrong = faults(line.rsplit_once(' ').context("a value")?.0, reference);
            ensure!(wrong.is_empty(), "{line}: {wrong:?}");
        }
    }
    let unlabelled = reference.iter().filter(|(_, family)| family.labels.is_empty());
    let missing: Vec<&String> = unlabelled.map(|(name, _)| name).filter(|name| !shown.contains(*name)).collect();
    ensure!(missing.is_empty(), "the reference tells of {missing:?}, which the node does not show:\n{page}");
    Ok(())
}
