//! The settings and commands of docs/security.md, as they stand there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{certificates::Authority, node::Node, tools};

/// What stands in the blocks of that language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let pieces = page.split("```").skip(1).step_by(2);
    pieces.filter_map(|piece| piece.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// The page, and what it takes for granted: files in `/etc/varve`.
struct Page {
    text: String,
    folder: tempfile::TempDir,
}

impl Page {
    fn open() -> Result<Page> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path(), "ca")?;
        for name in ["broker", "renewed"] {
            let identity = authority.issue("localhost", &["localhost", "127.0.0.1"], false)?;
            fs::copy(identity.both, folder.path().join(format!("{name}.pem")))?;
        }
        let text = fs::read_to_string(tools::checkout().join("docs/security.md"))?;
        // In its place: nobody's /etc is touched.
        let text = text.replace("/etc/varve", &folder.path().display().to_string());
        Ok(Page { text, folder })
    }

    /// The block of settings that has `word` in it.
    fn settings(&self, word: &str) -> Result<&str> {
        let found = blocks(&self.text, "properties").into_iter().find(|block| block.contains(word));
        found.with_context(|| format!("no block of settings with {word}"))
    }

    /// A node with these settings in a folder of its own, and one more listener, without protection.
    fn node(&self, name: &str, settings: &[&str]) -> Result<Node> {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder)?;
        let settings = settings.concat().replace("\\\n", "");
        let settings = settings.replace("listeners=", "listeners=PLAINTEXT://127.0.0.1:0,");
        let settings = settings.replace("0.0.0.0:9093", "127.0.0.1:0").replace("0.0.0.0:9094", "127.0.0.1:0");
        Node::start(&folder, &settings.lines().map(str::trim).collect::<Vec<_>>())
    }

    /// Runs the commands of the block that has `word` in it, against `node`, where `admin.properties` is.
    fn run(&self, word: &str, node: &Node, listener: &str) -> Result<String> {
        let block = blocks(&self.text, "sh").into_iter().find(|block| block.contains(word)).context("commands")?;
        let commands = block.replace("localhost:9094", &node.listener(listener)?.to_string());
        let commands = commands.replace("localhost:9092", &node.address.to_string());
        let tool = tools::program("kafka-configs.sh")?;
        let bin = Path::new(tool.get_program()).parent().context("a folder of tools")?;
        let script = format!("set -eu\nPATH={}:$PATH\n{commands}", bin.display());
        tools::output_of(Command::new("bash").arg("-c").arg(script).current_dir(self.folder.path()))
    }

    /// What a tool of Kafka's sees of a listener with SASL, with the settings of a client.
    fn topics_as(&self, node: &Node, client: &str) -> Result<String> {
        let file = self.folder.path().join("client.properties");
        fs::write(&file, client)?;
        let mut command = tools::program("kafka-topics.sh")?;
        command.args(["--list", "--bootstrap-server", &node.listener("SASL_SSL")?.to_string(), "--command-config"]);
        tools::output_of(command.arg(file))
    }
}

#[test]
fn keys_of_the_page_are_shown_and_renewed_by_its_command() -> Result<()> {
    let page = Page::open()?;
    let node = page.node("tls", &[page.settings("SSL://0.0.0.0:9093")?])?;
    let address = node.listener("SSL")?.to_string();
    let shown = || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-showcerts", "-connect", &address]).stdin(std::process::Stdio::null());
        tools::output_of(&mut command)
    };
    let certificate = |name: &str| -> Result<String> {
        let text = fs::read_to_string(page.folder.path().join(name))?;
        Ok(text[text.find("-----BEGIN CERTIFICATE").context("a certificate")?..].trim().replace('\r', ""))
    };
    ensure!(shown()?.contains(&certificate("broker.pem")?), "the page's key store is used");
    page.run("renewed.pem", &node, "SSL")?;
    varve_tests::node::eventually("the other key store is used", || {
        Ok(shown()?.contains(&certificate("renewed.pem")?).then_some(()))
    })?;
    node.stop()?;
    let own = page.node("certificates", &[page.settings("SSL://0.0.0.0:9093")?, page.settings("ssl.client.auth")?])?;
    own.stop()
}

#[test]
fn users_of_the_page_log_in_by_scram_and_by_plain() -> Result<()> {
    let page = Page::open()?;
    // Where keys are holds for each of them; which listeners there are does not.
    let keys: String = page.settings("SSL://0.0.0.0:9093")?.lines().skip(1).map(|line| format!("{line}\n")).collect();
    let admin = page.settings("username=\"admin\"")?;
    fs::write(page.folder.path().join("admin.properties"), admin)?;

    let node = page.node("scram", &[keys.as_str(), page.settings("varve.first.users")?])?;
    let made = page.run("alice-secret", &node, "SASL_SSL")?;
    ensure!(made.contains("Completed updating config for user alice."), "{made}");
    page.topics_as(&node, &admin.replace("admin", "alice"))?;
    ensure!(page.topics_as(&node, &admin.replace("admin-secret", "guess")).is_err(), "whoever guesses gets in");
    node.stop()?;

    let node = page.node("plain", &[keys.as_str(), page.settings("PlainLoginModule")?])?;
    let alice = admin.replace("admin", "alice").replace("SCRAM-SHA-512", "PLAIN");
    let alice = alice.replace("scram.ScramLoginModule", "plain.PlainLoginModule");
    page.topics_as(&node, &alice)?;
    ensure!(page.topics_as(&node, &alice.replace("alice-secret", "guess")).is_err(), "whoever guesses gets in");
    node.stop()
}
