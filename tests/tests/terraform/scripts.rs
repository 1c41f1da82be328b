//! What instances' scripts try again and again must work at last, and leave nothing behind meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::tools;

/// Lines with the functions of a role's script, on a machine whose programs are functions before them.
struct Script<'a> {
    folder: &'a Path,
    role: &'a str,
}

impl Script<'_> {
    fn run(&self, lines: &str) -> Result<String> {
        let (etc, scripts) = (self.folder.join("etc"), tools::checkout().join("deploy/terraform/instance"));
        fs::create_dir_all(&etc)?;
        fs::create_dir_all(self.temporary())?;
        fs::write(etc.join("number"), "1\n")?;
        fs::write(
            etc.join("instance.env"),
            "AWS_DEFAULT_REGION='us-east-1'\nCLUSTER='rig'\nROLE='etcd'\nDOMAIN='rig.internal'\nBUCKET='archive'\n\
             VARVE_URL='https://releases.example/varve'\nVARVE_SHA256='0'\nPACKAGES='awscli curl etcd-client'\n",
        )?;
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!(". {}/{}.sh\n{lines}", scripts.display(), self.role));
        command.env("LIB", &scripts).env("ETC", &etc).env("TMPDIR", self.temporary());
        command.env("DATA", self.folder.join("data")).env("STAMPS", self.folder.join("stamps"));
        tools::output_of(command.env("BINARY", self.folder.join("varve")))
    }

    /// What a broker sends by that name, whose page of metrics is what `printf` makes of these words.
    fn sent(&self, page: &str, name: &str) -> Result<Option<Value>> {
        let said = self.run(&format!(
            "curl() {{ case $* in */metrics) printf {page} ;; esac; }}; used_percent() {{ echo 1; }}; \
             aws() {{ echo \"${{@: -1}}\"; }}; metrics"
        ))?;
        let numbers: Vec<Value> = serde_json::from_str(&said)?;
        Ok(numbers.iter().find(|number| number["MetricName"] == name).map(|number| number["Value"].clone()))
    }

    fn temporary(&self) -> PathBuf {
        self.folder.join("temporary")
    }

    /// Temporary files of commands that have ended.
    fn left(&self) -> Result<usize> {
        Ok(fs::read_dir(self.temporary())?.count())
    }
}

/// A certificate for one name that ends after some days, in a file: key first, as instances have it.
pub(crate) fn certificate(file: &Path, name: &str, days: u32) -> Result<()> {
    fs::create_dir_all(file.parent().context("a folder")?)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-subj", "/CN=broker"]);
    openssl.args(["-days", &days.to_string(), "-addext", &format!("subjectAltName=DNS:{name}")]);
    tools::output_of(openssl.arg("-keyout").arg(file).arg("-out").arg(file.with_extension("certificate")))?;
    let both = [fs::read(file)?, fs::read(file.with_extension("certificate"))?].concat();
    Ok(fs::write(file, both)?)
}

#[test]
fn an_instance_waits_for_a_certificate_that_names_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = Script { folder: folder.path(), role: "broker" };
    certificate(&folder.path().join("etc/tls/node.pem"), "broker-3.rig.internal", 300)?;
    script.run("certificate_is_for broker-3.rig.internal")?;
    // What is not there yet, and what is only the beginning of a name.
    for other in ["broker-4.rig.internal", "broker-3", "broker-33.rig.internal"] {
        let said = script.run(&format!("certificate_is_for {other} 2>&1"));
        ensure!(said.is_err(), "{other}: {said:?}");
    }
    // The boot goes no further, and tries again.
    let steps = "install_packages() { :; }; install_binary() { :; }; mount_data() { :; }; chown() { :; }; metadata() { :; }; \
                 claim_volume() { echo vol-1 4; }; refresh_tls() { :; }; write_environment() { echo went on; exit 0; }; ";
    let said = script.run(&format!("{steps}prepare"));
    ensure!(
        said.as_ref().is_err_and(|error| format!("{error:#}").contains("does not name broker-4.rig.internal")),
        "{said:?}"
    );
    certificate(&folder.path().join("etc/tls/node.pem"), "*.rig.internal", 300)?;
    ensure!(script.run(&format!("{steps}prepare"))? == "went on\n", "it is named");
    Ok(())
}

#[test]
fn the_first_certificate_of_a_broker_that_ends_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = Script { folder: folder.path(), role: "broker" };
    // What it shows to etcd ends in 100 days; listeners show what they took last.
    certificate(&folder.path().join("etc/tls/started.pem"), "broker-1.rig.internal", 100)?;
    let metric = "varve_certificate_not_after_timestamp_seconds";
    ensure!(
        fs::read_to_string(tools::checkout().join("docs/metrics.md"))?.contains(&format!("`{metric}`")),
        "{metric}"
    );
    let told = |days: [i64; 2]| -> Result<i64> {
        let ends = days.map(|days| format!("$(($(date +%s) + {days} * 86400 + 3600))"));
        let page = format!("{metric}{{listener=\"CLIENT\"}} %d\\n{metric}{{listener=\"INTERNAL\"}} %d.0\\n");
        let days = script.sent(&format!("'{page}' {} {}", ends[0], ends[1]), "CertificateDays")?;
        days.context("its days")?.as_i64().context("whole days")
    };
    ensure!([99, 100].contains(&told([397, 397])?), "that of etcd was not read again");
    ensure!(told([397, 20])? == 20, "one listener took no other");
    ensure!(told([-2, 397])? == -1, "one has ended");
    Ok(())
}

#[test]
fn a_broker_says_how_near_it_is_to_refusing_producers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = Script { folder: folder.path(), role: "broker" };
    certificate(&folder.path().join("etc/tls/started.pem"), "broker-1.rig.internal", 100)?;
    let sent = |hot: u64, limit: u64| -> Result<Option<f64>> {
        let page = format!("'varve_hot_bytes {hot}\\nvarve_hot_limit_bytes {limit}\\n'");
        Ok(script.sent(&page, "HotUsedPercent")?.and_then(|percent| percent.as_f64()))
    };
    ensure!(sent(60 << 30, 80 << 30)? == Some(75.0), "three quarters");
    ensure!(sent(0, 80 << 30)? == Some(0.0), "none is a number, too");
    // Then the disk is the limit, which has an alarm of its own.
    ensure!(sent(60 << 30, 0)?.is_none(), "there is no limit");
    Ok(())
}

#[test]
fn packages_that_an_image_lacks_are_installed_and_no_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = Script { folder: folder.path(), role: "etcd" };
    let asked = "apt-get() { echo \"$*\"; }; ";
    let has = |installed: &str| {
        format!("dpkg-query() {{ case ${{@: -1}} in {installed}) echo -n installed ;; *) return 1 ;; esac; }}; ")
    };
    // Said where the journal is.
    let said = script.run(&format!("{}{asked}install_packages 2>&1", has("curl")))?;
    ensure!(said.contains("install --yes --quiet --no-install-recommends awscli etcd-client\n"), "{said}");
    // An image that has everything needs no way to Debian.
    let said = script.run(&format!("{}{asked}install_packages 2>&1", has("*")))?;
    ensure!(said.is_empty(), "{said}");
    // There is no way yet: the boot tries again.
    let said = script.run(&format!("{}apt-get() {{ return 100; }}; install_packages; echo done", has("curl")));
    ensure!(said.is_err(), "{said:?}");
    Ok(())
}

#[test]
fn settings_that_are_secrets_are_lines_of_their_own_or_the_boot_tries_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = Script { folder: folder.path(), role: "broker" };
    let ask = |answer: &str, settings: &str| {
        script.run(&format!("secret() {{ {answer}; }}; SECRET_SETTINGS='{settings}'; secret_settings"))
    };
    ensure!(ask("echo value", "")?.is_empty(), "there are none");
    let said = ask("echo \"of $1\"", "a.password b.secret")?;
    ensure!(said == "a.password=of settings/a.password\nb.secret=of settings/b.secret\n", "{said}");
    for answer in ["return 1", "printf 'value\\nnode.id=7\\n'"] {
        let said = ask(answer, "a.password");
        ensure!(said.is_err(), "{said:?}");
    }
    Ok(())
}

#[test]
fn a_backup_that_fails_leaves_no_snapshot_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = Script { folder: folder.path(), role: "etcd" };
    let saves = "ctl() { [ \"$3\" != save ] || echo data >\"$4\"; }; ";
    let said = script.run(&format!("{saves}aws() {{ cp \"$4\" \"$DATA\"; return 1; }}; backup"));
    ensure!(said.is_err() && fs::read(folder.path().join("data"))? == b"data\n", "it was to be sent: {said:?}");
    ensure!(script.left()? == 0 && !folder.path().join("stamps/last").exists(), "it has failed, and left nothing");
    script.run(&format!("{saves}aws() {{ test -s \"$4\"; }}; backup"))?;
    ensure!(script.left()? == 0 && folder.path().join("stamps/last").exists(), "it is done, and left nothing");
    Ok(())
}

#[test]
fn a_download_that_breaks_off_leaves_nothing_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = Script { folder: folder.path(), role: "broker" };
    let said = script.run("curl() { echo half >\"${@: -2:1}\"; return 18; }; install_binary");
    ensure!(said.is_err() && script.left()? == 0, "{said:?}");
    ensure!(!folder.path().join("varve").exists(), "half a binary is none");
    Ok(())
}
