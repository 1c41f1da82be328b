//! The etcd that `cargo xtask tools` installs starts and answers.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context, Result, ensure};
use varve_tests::{node::eventually, tools};

/// An etcd of its own on free loopback ports; killed when dropped.
struct Etcd(Child);

impl Etcd {
    fn start(folder: &Path) -> Result<(Etcd, String)> {
        let log = fs::File::create(folder.join("etcd.log"))?;
        let mut command = tools::program("etcd")?;
        command.args(["--name", "one", "--data-dir"]).arg(folder.join("data"));
        command.args(["--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:0"]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--logger", "zap"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let etcd = Etcd(command.spawn().with_context(|| format!("starting {command:?}"))?);
        let endpoint = eventually("etcd says where it listens", || {
            let printed = fs::read_to_string(folder.join("etcd.log"))?;
            let line = printed.lines().find(|line| line.contains("serving client traffic insecurely"));
            let address = line.and_then(|line| line.split('"').find(|word| word.starts_with("127.0.0.1:")));
            Ok(address.map(str::to_owned))
        })?;
        Ok((etcd, endpoint))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn etcd_keeps_a_value_and_lets_only_the_first_of_two_writers_win() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (_etcd, endpoint) = Etcd::start(folder.path())?;
    let ctl = |arguments: &[&str], transaction: &str| -> Result<String> {
        let mut command = tools::program("etcdctl")?;
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint]).args(arguments);
        let input = folder.path().join("input");
        fs::write(&input, transaction)?;
        tools::output_of(command.stdin(fs::File::open(input)?))
    };
    ctl(&["put", "varve/leader", "1"], "")?;
    ensure!(ctl(&["get", "varve/leader", "--print-value-only"], "")? == "1\n", "the value comes back");
    let take = |value: &str| format!("create(\"varve/controller\") = \"0\"\n\nput varve/controller {value}\n\n\n");
    ensure!(ctl(&["txn"], &take("1"))?.starts_with("SUCCESS"), "nobody was there");
    ensure!(ctl(&["txn"], &take("2"))?.starts_with("FAILURE"), "the first one holds it");
    Ok(())
}
