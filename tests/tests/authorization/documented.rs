//! The commands of docs/authorization.md, as they stand there.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{node::Node, tools};

#[test]
fn the_commands_of_the_page_about_rules_work_as_they_stand() -> Result<()> {
    let text = fs::read_to_string(tools::checkout().join("docs/authorization.md"))?;
    let settings = block(&text, "properties")?[0].trim();
    let folder = tempfile::tempdir()?;
    // Nobody logs in here, so the super user of the page is nobody; whoever types the commands takes the place.
    let settings = settings.replace("User:admin", "User:ANONYMOUS");
    let node = Node::start(folder.path(), &settings.lines().collect::<Vec<_>>())?;
    let bin = tools::program("kafka-acls.sh")?;
    let bin = std::path::Path::new(bin.get_program()).parent().context("a folder of tools")?.to_owned();
    let mut printed = String::new();
    for commands in block(&text, "sh")? {
        let commands = commands.replace("127.0.0.1:9092", &node.address.to_string());
        let script = format!("set -eu\nPATH={}:$PATH\n{commands}", bin.display());
        printed += &tools::output_of(Command::new("bash").arg("-c").arg(script))?;
    }
    for line in [
        "Adding ACLs for resource `ResourcePattern(resourceType=GROUP, name=search, patternType=LITERAL)`",
        "(principal=User:team-a, host=10.0.0.17, operation=ALL, permissionType=ALLOW)",
        "(principal=User:*, host=*, operation=DELETE, permissionType=DENY)",
    ] {
        ensure!(printed.contains(line), "{line} is not in\n{printed}");
    }
    ensure!(node.http_get("/metrics")?.contains("varve_acls 7\n"), "3 to produce, 3 to consume, 1 for the team");
    node.stop()
}

/// What stands in the blocks of that language.
fn block<'a>(page: &'a str, language: &str) -> Result<Vec<&'a str>> {
    let pieces = page.split("```").skip(1).step_by(2);
    let found: Vec<&str> = pieces.filter_map(|piece| piece.strip_prefix(language)?.strip_prefix('\n')).collect();
    ensure!(!found.is_empty(), "no block of {language}");
    Ok(found)
}
