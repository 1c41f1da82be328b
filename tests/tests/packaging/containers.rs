//! The image, and the cluster of the compose file.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    compose,
    etcd::Etcd,
    node::{Node, stable_address, varve},
    s3::S3Emulator,
    tools,
};

use super::{at, read};

/// The instructions of the Dockerfile: what it is, and the rest of it on one line.
fn instructions() -> Result<Vec<(String, String)>> {
    let text = read(compose::DOCKERFILE)?.replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| line.split_once(' '));
    Ok(lines.map(|(what, rest)| (what.to_owned(), rest.trim().to_owned())).collect())
}

/// Those of its last stage.
fn image() -> Result<Vec<(String, String)>> {
    let all = instructions()?;
    let last = all.iter().rposition(|(what, _)| what == "FROM").context("a stage")?;
    Ok(all[last..].to_vec())
}

#[test]
fn the_image_is_small_runs_as_nobody_and_says_how_it_is() -> Result<()> {
    tools::output_of(tools::deploy("hadolint")?.arg(at(compose::DOCKERFILE)))?;
    let image = image()?;
    let one = |wanted: &str| image.iter().find(|(what, _)| what == wanted).map_or("", |(_, rest)| rest.as_str());
    // Whoever builds may give these by digest; what stands there is for everybody else.
    let defaults: BTreeMap<String, String> = instructions()?
        .iter()
        .filter_map(|(what, rest)| (what == "ARG").then(|| rest.split_once('='))?)
        .map(|(name, value)| (format!("${{{name}}}"), value.to_owned()))
        .collect();
    let base = defaults.get(one("FROM")).context("the base is an argument")?;
    ensure!(base.contains("distroless") && base.ends_with(":nonroot"), "{base}");
    let pinned = read("rust-toolchain.toml")?;
    let version = pinned.split("channel = \"").nth(1).and_then(|rest| rest.split('"').next()).context("a channel")?;
    let rust = defaults.get("${RUST_IMAGE}").context("Rust is an argument")?;
    let tag = rust.strip_prefix("rust:").and_then(|tag| tag.split('-').next()).context("a tag")?;
    // To the last number: `1.95` will be 1.95.1 one day, and not what everything was tested with.
    ensure!(tag == version, "{rust} is not the Rust {version} of this checkout");
    ensure!(one("USER") == "65532:65532" && one("ENTRYPOINT") == r#"["/usr/bin/varve"]"#, "{image:?}");
    // Who gets the binary gets the licences of all that is linked into it.
    let builds = instructions()?.iter().any(|(_, rest)| rest.contains("licenses --into /out/usr/share/doc/varve/"));
    ensure!(builds && image.iter().any(|(_, rest)| rest == "--from=build /out /"), "{image:?}");
    // What it is built from is in the checkout, and nothing of it is kept from the builder.
    let ignored = read(".dockerignore")?;
    let stays_outside = |part: &str| ignored.lines().any(|line| line == part);
    for part in ["Cargo.toml", "Cargo.lock", "broker", "metadata"] {
        ensure!(at(part).exists() && !stays_outside(part), "{part}");
    }
    // With it, rustup would fetch at every build what the image's profile lacks.
    ensure!(stays_outside("rust-toolchain.toml"), "the image's Rust builds, and fetches no other");
    // The entry point with the image's environment, and its health check beside it.
    let folder = tempfile::tempdir()?;
    let mut command = varve()?;
    for (name, value) in compose::image_environment()? {
        command.env(name, value.replace("/var/lib/varve", &folder.path().join("data").display().to_string()));
    }
    let node = Node::launch(folder.path(), command, &[])?;
    ensure!(folder.path().join("data/log").is_dir(), "the volume is used");
    let check = one("HEALTHCHECK").split_once("CMD").context("a command")?.1;
    let check: Vec<String> = serde_json::from_str(check.trim())?;
    ensure!(check[0] == "/usr/bin/varve", "{check:?}");
    let mut health = varve()?;
    health.args(&check[1..]).args(["--override", &format!("varve.http.listener={}", node.http)]);
    ensure!(tools::output_of(&mut health)? == "ok\n", "the health check");
    let http = node.http;
    node.stop()?;
    let mut health = varve()?;
    health.args(&check[1..]).args(["--override", &format!("varve.http.listener={http}")]);
    ensure!(!health.output()?.status.success(), "a node that is gone is not healthy");
    Ok(())
}

#[test]
fn what_the_cluster_of_the_compose_file_runs_is_a_cluster() -> Result<()> {
    let file = compose::read("deploy/compose/cluster.yaml")?;
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("etcd");
    fs::create_dir_all(&place)?;
    let (etcd, store) = (Etcd::start(&place)?, S3Emulator::start()?);
    store.make_bucket("varve")?;
    let names = ["broker-1", "broker-2", "broker-3"];
    let ports: Vec<_> = names.iter().map(|_| Ok((stable_address()?, stable_address()?))).collect::<Result<_>>()?;
    let outside = |text: &str| {
        let mut text =
            text.replace("etcd:2379", &etcd.address().to_string()).replace("s3:8333", &store.address().to_string());
        for (at, (name, (internal, published))) in names.iter().zip(&ports).enumerate() {
            text = text.replace(&format!("{name}:9092"), &internal.to_string());
            text = text.replace(&format!("localhost:{}9092", at + 1), &published.to_string());
        }
        text
    };
    let command = |service: &str| -> Result<(Command, BTreeMap<String, String>)> {
        let mut command = varve()?;
        let variables = compose::environment(&file["services"][service])?;
        for (name, value) in &variables {
            let value = if name == "VARVE_DATA_DIR" { "./varve-data".to_owned() } else { outside(value) };
            command.env(name, value);
        }
        Ok((command, variables))
    };
    let start = |at: usize| -> Result<Node> {
        let (internal, published) = ports[at];
        let folder = folder.path().join(names[at]);
        fs::create_dir_all(&folder)?;
        let (command, variables) = command(names[at])?;
        let listeners = variables["VARVE_LISTENERS"]
            .replace("0.0.0.0:9092", &internal.to_string())
            .replace("0.0.0.0:9093", &published.to_string());
        Node::launch(&folder, command, &[&format!("listeners={listeners}"), "varve.compactor.interval.ms=500"])
    };
    let nodes: Vec<Node> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..names.len()).map(|at| scope.spawn(move || start(at))).collect();
        starting.into_iter().map(|one| one.join().expect("starting does not panic")).collect::<Result<_>>()
    })?;
    let canary = &file["services"]["canary"];
    let arguments: Vec<String> = serde_json::from_value(canary["command"].clone())?;
    let (mut command, _) = command("canary")?;
    command.args(arguments.iter().map(|argument| outside(argument))).current_dir(folder.path());
    let said = tools::output_of(&mut command)?;
    ensure!(said.contains("step: query  outcome: ok"), "{said}");
    for node in nodes {
        node.stop()?;
    }
    Ok(())
}
