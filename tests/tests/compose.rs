//! Compose files: that they keep to the specification, run what is pinned, and ask containers how they are by commands that work in
//! the environment that those have. What they start is tried in `packaging` and, for the rig, in `terraform`.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{
    compose,
    node::{Node, varve},
    tools,
};

const RIG: &str = "localstack/compose.yaml";
const CLUSTER: &str = "deploy/compose/cluster.yaml";
const FILES: [&str; 3] = ["deploy/compose/single.yaml", CLUSTER, RIG];
/// The store of the cluster: of many that create the same object at the same time one wins, on which manifests rest. Others, and
/// older ones of this, do not have that (docs/archive.md, "What the store must do"): try a version before it goes in here.
const STORE: &str = "chrislusf/seaweedfs:4.48";

fn is_pinned(image: &str) -> bool {
    image.rsplit_once(':').is_some_and(|(_, tag)| tag.starts_with(|first: char| first.is_ascii_digit() || first == 'v'))
}

/// A file's line `NAME==VERSION` of the tools.
fn pin(file: &str, name: &str) -> Result<String> {
    let text = fs::read_to_string(tools::checkout().join("tests/tools").join(file))?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("=="));
    Ok(found.with_context(|| format!("{file} pins no {name}"))?.to_owned())
}

#[test]
fn every_file_keeps_to_the_specification_and_runs_what_is_pinned() -> Result<()> {
    let ours = tools::checkout().join(compose::DOCKERFILE).canonicalize()?;
    for path in FILES {
        let file = compose::read(path)?;
        for (name, service) in compose::services(&file)? {
            let place = format!("{path}: {name}");
            if let Some(image) = compose::image(service) {
                ensure!(is_pinned(image), "{place}: {image} is not pinned");
                // It would end where laptops are arm64.
                let may_run = service["environment"]["ETCD_UNSUPPORTED_ARCH"] == "arm64";
                ensure!(may_run || !image.contains("/etcd:v3.4."), "{place}: {image} is not told to run on arm64");
            } else if let Some(written) = service["build"]["dockerfile_inline"].as_str() {
                let base = written.lines().find_map(|line| line.strip_prefix("FROM ")).context("FROM")?;
                ensure!(is_pinned(base), "{place}: {base} is not pinned");
            } else {
                ensure!(compose::dockerfile(path, service).as_ref() == Some(&ours), "{place} is built from {ours:?}");
                ensure!(service["read_only"] == true && service["stop_grace_period"] == "45s", "{place}");
            }
            for needed in service["depends_on"].as_object().into_iter().flatten().map(|(needed, _)| needed) {
                ensure!(file["services"][needed].is_object(), "{place} waits for {needed}, which is not there");
            }
            for volume in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let from = volume.split(':').next().unwrap_or_default();
                let is_there = from.starts_with('.') || file["volumes"].get(from).is_some();
                ensure!(is_there, "{place}: no volume {from}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_cluster_keeps_its_archive_in_a_store_of_which_it_is_known_that_one_creator_wins() -> Result<()> {
    let file = compose::read(CLUSTER)?;
    for service in ["s3", "bucket"] {
        let image = compose::image(&file["services"][service]);
        ensure!(image == Some(STORE), "{service}: {image:?}");
    }
    let page = fs::read_to_string(tools::checkout().join("docs/archive.md"))?;
    let (_, version) = STORE.split_once(':').context("a version")?;
    ensure!(page.contains(&format!("SeaweedFS {version}")), "docs/archive.md says which version was tried");
    Ok(())
}

#[test]
fn the_bucket_of_the_cluster_is_made_once_and_is_no_error_ever_after() -> Result<()> {
    // As the store's shell is: making a bucket that is there fails.
    const WEED: &str = "#!/bin/sh\nread -r command\ncase $command in\n\
        'fs.ls /buckets') cat buckets ;;\n\
        's3.bucket.create -name varve') ! grep -qx varve buckets && echo varve >>buckets ;;\n\
        *) exit 2 ;;\nesac\n";
    let folder = tempfile::tempdir()?;
    let weed = folder.path().join("weed");
    fs::write(&weed, WEED)?;
    fs::set_permissions(&weed, fs::Permissions::from_mode(0o755))?;
    fs::write(folder.path().join("buckets"), "")?;
    let service = &compose::read(CLUSTER)?["services"]["bucket"];
    let words = |name: &str| serde_json::from_value::<Vec<String>>(service[name].clone()).context(name.to_owned());
    let (entrypoint, command) = (words("entrypoint")?, words("command")?);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    // At the first `up`, and again with `run` and the next `up`.
    for _ in 0..3 {
        let mut made = Command::new(&entrypoint[0]);
        made.args(&entrypoint[1..]).args(command.iter().map(|word| word.replace("$$", "$")));
        tools::output_of(made.current_dir(folder.path()).env("PATH", &path))?;
        ensure!(fs::read_to_string(folder.path().join("buckets"))? == "varve\n", "there is one bucket");
    }
    Ok(())
}

#[test]
fn the_rig_in_containers_is_made_of_the_versions_that_the_rig_without_is() -> Result<()> {
    let file = compose::read(RIG)?;
    let image = |service: &str| compose::image(&file["services"][service]).unwrap_or_default().to_owned();
    let localstack = pin("localstack.txt", "localstack-core[runtime]")?;
    ensure!(image("aws") == format!("localstack/localstack:{localstack}"), "{}", image("aws"));
    let moto = pin("requirements.txt", "moto[server]")?;
    ensure!(image("compute") == format!("motoserver/moto:{moto}"), "{}", image("compute"));
    // One that is older than AWS_ENDPOINT_URL would ask AWS itself.
    let written = file["services"]["prepare"]["build"]["dockerfile_inline"].as_str().context("a Dockerfile")?;
    let installed = format!("pip install --no-cache-dir awscli=={}", pin("aws.txt", "awscli")?);
    ensure!(written.lines().any(|line| line.ends_with(&installed)), "no {installed} in\n{written}");
    let of_debian = written.lines().find(|line| line.contains("apt-get install")).context("Debian's packages")?;
    ensure!(!of_debian.contains("awscli"), "{of_debian}");
    Ok(())
}

#[test]
fn containers_are_asked_how_they_are_by_commands_that_work_in_their_environment() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let listener = format!("varve.http.listener={}", node.http);
    let mut asked = 0;
    for path in ["deploy/compose/single.yaml", CLUSTER] {
        let file = compose::read(path)?;
        for (name, service) in compose::services(&file)? {
            if compose::dockerfile(path, service).is_none() {
                continue;
            }
            let Some(arguments) = compose::health_check(service)? else { continue };
            let mut health = varve()?;
            health.args(arguments).args(["--override", &listener]).envs(compose::environment(service)?);
            let said = tools::output_of(&mut health).with_context(|| format!("{path}: {name}"))?;
            ensure!(said.starts_with("ready"), "{path}: {name}: {said}");
            asked += 1;
        }
    }
    ensure!(asked == 4, "{asked} are asked");
    node.stop()
}
