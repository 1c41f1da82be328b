//! localstack/compose.yaml without containers: what `prepare` writes out of what Terraform made, and the command by which each
//! broker is asked how it is, in the environment that its container has.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    aws::Caller,
    compose,
    node::{Node, varve},
    tools,
};

use crate::instance;

/// Where brokers find their settings.
const ETC: &str = "/etc/varve";

/// Plays the rig's containers between the module and the brokers. `folder` has the authority, which stays.
pub(crate) fn brokers_are_prepared_and_asked_how_they_are(folder: &Path, owner: &Caller, outputs: &str) -> Result<()> {
    let file = compose::read("localstack/compose.yaml")?;
    let root = folder.join("containers");
    for volume in ["state", "etc-1", "etc-2", "etc-3", "node"] {
        fs::create_dir_all(root.join(volume))?;
    }
    symlink(tools::checkout(), root.join("checkout"))?;
    symlink(folder.join("authority"), root.join("authority"))?;
    fs::write(root.join("state/outputs.json"), outputs)?;
    prepare(&root, owner, "all")?;
    ensure!(prepare(&root, owner, "password")?.trim().len() == 48, "the first user's password");

    let node = Node::start(&root.join("node"), &[])?;
    let listener = format!("varve.http.listener={}", node.http);
    for number in 1..=3 {
        let name = format!("broker-{number}");
        let service = &file["services"][&name];
        let volumes = service["volumes"].as_array().context("volumes")?;
        ensure!(volumes.iter().any(|volume| *volume == format!("etc-{number}:{ETC}:ro")), "{name}: {volumes:?}");
        let etc = root.join(format!("etc-{number}"));
        let properties = fs::read_to_string(etc.join("server.properties"))?;
        let is_its_own = properties.contains(&format!("node.id={number}\n")) && !properties.contains('@');
        ensure!(is_its_own && properties.contains("varve.first.users=SCRAM-SHA-512="), "{name}: {properties}");
        ensure!(fs::metadata(etc.join("server.properties"))?.mode() & 0o007 == 0, "nobody else reads the password");

        let arguments = compose::health_check(service)?.with_context(|| format!("{name} is asked how it is"))?;
        let mut health = varve()?;
        for (variable, value) in compose::environment(service)? {
            health.env(variable, value.replace(ETC, &etc.display().to_string()));
        }
        let said = tools::output_of(health.args(arguments).args(["--override", &listener])).context(name)?;
        ensure!(said.starts_with("ready"), "{said}");
    }
    node.stop()
}

/// What the container `prepare` runs, with folders below `root` in place of its volumes.
fn prepare(root: &Path, owner: &Caller, what: &str) -> Result<String> {
    let mut script = Command::new("bash");
    script.arg(tools::checkout().join("localstack/prepare.sh")).arg(what).envs(owner.environment());
    script.env("PATH", instance::path()?).env("LIB", root.join("checkout/deploy/terraform/instance"));
    script.env("ROOT", root).env("OWNER", fs::metadata(root)?.uid().to_string());
    tools::output_of(&mut script)
}
