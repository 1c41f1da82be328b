//! What goes onto a machine by itself: units, the Debian package, completions and manual pages.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::{Result, bail, ensure};
use varve_tests::{
    node::{binary, varve},
    tools,
};

use super::{at, checked, read, shell};

/// What lintian would rightly say of a package that was made in a hurry.
const NOT_COMPRESSED: &str = "uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball";
/// How exposed `systemd-analyze security` may call a unit, times ten: below 2 it says that all is well.
const EXPOSURE: &str = "20";

#[test]
fn units_are_sound_and_hardened() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for unit in ["varve.service", "varve-canary.service", "varve-etcd.service"] {
        let file = at("deploy/systemd").join(unit);
        let threshold = format!("--threshold={EXPOSURE}");
        tools::output_of(
            Command::new("systemd-analyze").args(["security", "--no-pager", "--offline=true", &threshold]).arg(&file),
        )?;
        // What it starts is not installed where this test runs.
        let text =
            fs::read_to_string(&file)?.replace("/usr/bin/varve ", "/bin/true ").replace("/usr/bin/etcd ", "/bin/true ");
        let copy = folder.path().join(unit);
        fs::write(&copy, text)?;
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output()?;
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // The machine's own units are no business of ours, and the user of etcd is not there.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(unit)).collect();
        ensure!(ours.is_empty(), "{}", ours.join("\n"));
    }
    checked(folder.path(), &read("deploy/systemd/server.properties")?)?;
    let stop = read("deploy/systemd/varve.service")?;
    ensure!(stop.contains("\nTimeoutStopSec=90s\n"), "longer than varve.shutdown.timeout.ms, which is 30 s unless set");
    Ok(())
}

#[test]
fn the_debian_package_installs_into_an_empty_root_and_goes_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (place, root) = (folder.path(), folder.path().join("root"));
    let build = || {
        let mut build = Command::new(at("deploy/debian/build.sh"));
        // Not for long: to compress the binary as small as it goes takes longer than all else here.
        build.env("SOURCE_DATE_EPOCH", "1700000000").env("DPKG_DEB_COMPRESSOR_TYPE", "none");
        tools::output_of(build.arg(binary()?).arg(place.join("THIRD-PARTY-LICENSES")).arg(place))
    };
    // The command that the handbook gives, with the binary that is here.
    let xtask = binary()?.with_file_name("xtask");
    ensure!(xtask.exists(), "{} is not there: cargo build --package varve-xtask", xtask.display());
    let mut packed = Command::new(xtask);
    packed.env("SOURCE_DATE_EPOCH", "1700000000").env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let printed = tools::output_of(packed.args(["package", "--binary"]).arg(binary()?).arg("--into").arg(place))?;
    let [plain, package, licenses, sums] = printed.lines().collect::<Vec<_>>()[..] else { bail!("{printed}") };
    ensure!(tools::output_of(Command::new(plain).arg("--version").env_clear())?.starts_with("varve "), "{plain} runs");
    ensure!(sums.ends_with("/SHA256SUMS"), "{sums}");
    shell(place, "sha256sum --check --strict SHA256SUMS && [ $(wc -l <SHA256SUMS) = 3 ]")?;
    let fields = tools::output_of(Command::new("dpkg-deb").args(["--field", package]))?;
    ensure!(fields.contains("libc6 (>=") && fields.starts_with("Package: varve\n"), "{fields}");
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on=error,warning", "--suppress-tags", NOT_COMPRESSED, package]);
    tools::output_of(&mut lintian)?;
    fs::create_dir_all(root.join("var/lib/dpkg/info"))?;
    fs::create_dir_all(root.join("var/lib/dpkg/updates"))?;
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "")?;
    }
    let dpkg = |arguments: &[&str]| -> Result<String> {
        let mut dpkg = Command::new("dpkg");
        // There are no libraries in that root, and no shell to change into it with.
        dpkg.args(["--force-depends", "--force-script-chrootless", "--root"]).arg(&root).args(arguments);
        tools::output_of(&mut dpkg)
    };
    dpkg(&["--install", package])?;
    let listed = dpkg(&["--listfiles", "varve"])?;
    for file in [
        "/usr/bin/varve",
        "/usr/lib/systemd/system/varve.service",
        "/usr/lib/systemd/system/varve-canary.service",
        "/usr/lib/sysusers.d/varve.conf",
        "/etc/varve/server.properties",
        "/usr/share/man/man1/varve.1.gz",
        "/usr/share/man/man1/varve-canary.1.gz",
        "/usr/share/man/man1/varve-tier-verify.1.gz",
        "/usr/share/bash-completion/completions/varve",
        "/usr/share/zsh/vendor-completions/_varve",
        "/usr/share/fish/vendor_completions.d/varve.fish",
        "/usr/share/doc/varve/copyright",
        "/usr/share/doc/varve/THIRD-PARTY-LICENSES.gz",
    ] {
        let installed = root.join(&file[1..]);
        ensure!(listed.lines().any(|line| line == file) && installed.is_file(), "{file} is missing from\n{listed}");
    }
    let program = root.join("usr/bin/varve");
    ensure!(fs::metadata(&program)?.permissions().mode() & 0o7777 == 0o755, "an ordinary program");
    // What the unit starts, from where it was put.
    let installed = tools::output_of(Command::new(&program).arg("--version").env_clear())?;
    ensure!(installed.starts_with("varve "), "{installed}");
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/varve.service"))?;
    ensure!(unit.contains("\nExecStart=/usr/bin/varve --config /etc/varve/server.properties\n"), "{unit}");
    let users = fs::read_to_string(root.join("etc/passwd"))?;
    ensure!(users.lines().any(|line| line.starts_with("varve:")), "the user is made: {users}");
    ensure!(
        tools::output_of(Command::new("gzip").args(["--test"]).arg(root.join("usr/share/man/man1/varve.1.gz"))).is_ok(),
        "a page"
    );
    let texts = Command::new("gzip")
        .args(["--decompress", "--stdout"])
        .arg(root.join("usr/share/doc/varve/THIRD-PARTY-LICENSES.gz"))
        .output()?;
    let texts = String::from_utf8(texts.stdout)?;
    ensure!(texts == fs::read_to_string(licenses)?, "what lies beside the binary is in the package too");
    for part in ["\ntokio 1.", "Copyright (c) Tokio Contributors", "zstd/LICENSE", "Rust's standard library"] {
        ensure!(texts.contains(part), "{part} is missing from {licenses}");
    }
    ensure!(!texts.contains("zstd/COPYING") && !texts.contains("liblz4/programs"), "nobody takes these by the GPL");
    // What was changed stays when the package goes, and records do in any case.
    fs::write(root.join("etc/varve/server.properties"), "node.id=7\n")?;
    fs::create_dir_all(root.join("var/lib/varve/log"))?;
    dpkg(&["--remove", "varve"])?;
    ensure!(!program.exists() && root.join("etc/varve/server.properties").exists(), "removed, with its settings left");
    dpkg(&["--purge", "varve"])?;
    ensure!(root.join("var/lib/varve/log").exists() && !root.join("etc/varve/server.properties").exists(), "purged");
    // The same again is the same, byte for byte.
    let first = fs::read(package)?;
    build()?;
    ensure!(fs::read(package)? == first, "two builds differ");
    Ok(())
}

#[test]
fn shells_complete_and_pages_are_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tools::output_of(varve()?.args(["completions", shell]))?;
        ensure!(script.contains("canary") && script.contains("bootstrap-server"), "{shell}");
    }
    let script = folder.path().join("varve.bash");
    fs::write(&script, tools::output_of(varve()?.args(["completions", "bash"]))?)?;
    let asked = format!(
        "source {}; COMP_WORDS=(varve tier ver); COMP_CWORD=2; _varve varve ver tier; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let completed = shell(folder.path(), &format!("set +eu; {asked}"))?;
    ensure!(completed.trim() == "verify", "{completed}");
    let page = tools::output_of(varve()?.arg("man"))?;
    ensure!(page.contains(".TH varve 1"), "{page}");
    Ok(())
}
