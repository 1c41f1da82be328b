//! Licences of what the binary is linked with: one file with all their texts, for whoever is given the binary.
//!
//! Which crates those are is what `cargo tree` says: neither what only builds and tests use nor macros, with the features that are
//! built. Their texts lie beside their sources. A crate that came without one stands under the text of the licence that it names,
//! which is said there; one that names none that we know ends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::ARCH,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

use crate::run::{cargo, printed, root};

/// The package whose binary is given out.
const PACKAGE: &str = "varve-broker";
/// What the names of texts begin with, in lower case. A folder of that name is full of them.
const NAMES: [&str; 6] = ["license", "licence", "unlicense", "copying", "copyright", "notice"];
/// Files of such names that are no texts.
const OTHER_KINDS: [&str; 5] = ["rs", "toml", "yml", "yaml", "json"];
/// Texts of what a crate brings and does not build, or of a licence that it may be had under and is not, each by its crate.
const LEFT_OUT: [(&str, &str); 6] = [
    // That the library is under one licence, and programs and examples under another.
    ("lz4-sys", "liblz4/LICENSE"),
    ("lz4-sys", "liblz4/programs/"),
    ("lz4-sys", "liblz4/examples/"),
    ("lz4-sys", "liblz4/tests/"),
    ("lz4-sys", "liblz4/contrib/"),
    // The GPL, in place of BSD's.
    ("zstd-sys", "zstd/COPYING"),
];
/// Under which licence a crate without a text is taken, the first that it names: Apache's text is the same for all, and MIT's is but for
/// the line of who holds the rights.
const TAKEN: [&str; 2] = ["Apache-2.0", "MIT"];
/// Where Debian keeps what musl's authors say.
const MUSL: &str = "/usr/share/doc/musl/copyright";

/// What the texts are for, and where they go.
#[derive(Args)]
pub(crate) struct LicensesArguments {
    /// The target that the binary is built for; when absent this machine, with the system's C library
    #[arg(long)]
    target: Option<String>,
    /// The file that is written
    #[arg(long, default_value = "target/THIRD-PARTY-LICENSES")]
    into: PathBuf,
}

/// Writes the file, and prints where it is.
pub(crate) fn run(arguments: &LicensesArguments) -> Result<()> {
    let into = root().join(&arguments.into);
    let target = arguments.target.clone().unwrap_or_else(|| of_this_machine("gnu"));
    write(&target, &into)?;
    println!("{}", into.display());
    Ok(())
}

/// The target of this machine with that C library.
pub(crate) fn of_this_machine(library: &str) -> String {
    format!("{ARCH}-unknown-linux-{library}")
}

/// Writes to `file` what goes with a binary for `target`.
pub(crate) fn write(target: &str, file: &Path) -> Result<()> {
    let mut texts = of_crates(target)?;
    texts.add("Rust's standard library", standard_library()?);
    if target.ends_with("-musl") {
        let text = fs::read_to_string(MUSL).with_context(|| format!("{MUSL}; first: apt-get install musl-tools"))?;
        texts.add("musl, the C library", text);
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::write(file, texts.shown()?).with_context(|| file.display().to_string())
}

/// Finds the texts for every target that `deny.toml` has, and fails for a crate that there is none for.
pub(crate) fn check() -> Result<()> {
    for target in targets()? {
        let texts = of_crates(&target)?;
        println!("{target}: {} crates are linked, under {} texts", texts.crates.len(), texts.of_whom.len());
    }
    Ok(())
}

/// What the file says.
#[derive(Default)]
struct Texts {
    /// A line of each crate.
    crates: BTreeSet<String>,
    /// Of whom each text is.
    of_whom: BTreeMap<String, BTreeSet<String>>,
}

impl Texts {
    fn add(&mut self, whose: &str, text: String) {
        // The same is often there once with the other ends of lines, or with one more at its end.
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        self.of_whom.entry(lines.join("\n").trim_matches('\n').to_owned()).or_default().insert(whose.to_owned());
    }

    fn shown(&self) -> Result<String> {
        const RULE: &str = "========================================================================";
        let mut shown = String::from(
            "The program varve is under the Apache License, Version 2.0, and is linked with the work of others. That is\n\
             listed here, each with the licences that it names, and then the texts that came with it.\n\n",
        );
        for line in &self.crates {
            writeln!(shown, "{line}")?;
        }
        for (text, of_whom) in &self.of_whom {
            let of_whom: Vec<&str> = of_whom.iter().map(String::as_str).collect();
            writeln!(shown, "\n{RULE}\n{}\n{RULE}\n\n{text}", of_whom.join("\n"))?;
        }
        Ok(shown)
    }
}

/// The targets of `deny.toml`, whose list is one of JSON too.
fn targets() -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("deny.toml"))?;
    let list = text.split("targets = ").nth(1).and_then(|rest| rest.split_inclusive(']').next());
    Ok(serde_json::from_str(list.context("deny.toml has targets")?)?)
}

/// The texts of all crates that are linked into a binary for `target`.
fn of_crates(target: &str) -> Result<Texts> {
    let mut texts = Texts::default();
    let linked = linked(target)?;
    let metadata: Value =
        serde_json::from_str(&printed(cargo().args(["metadata", "--locked", "--format-version", "1"]))?)?;
    let mut found = 0;
    for package in metadata["packages"].as_array().context("packages")? {
        let of = |field: &str| package[field].as_str().unwrap_or_default();
        let name = format!("{} {}", of("name"), of("version"));
        if !linked.contains(&name) {
            continue;
        }
        found += 1;
        // Ours are under the licence that the program is under.
        if package["source"].is_null() {
            continue;
        }
        texts.crates.insert(format!("{name}: {}; {}", of("license"), of("repository")));
        let manifest = Path::new(of("manifest_path"));
        let folder = manifest.parent().with_context(|| name.clone())?;
        let own = texts_in(of("name"), folder, package["license_file"].as_str())?;
        if own.is_empty() {
            let authors: Vec<&str> =
                package["authors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let text =
                named_text(of("license"), of("name"), &authors).with_context(|| format!("{name} has no text"))?;
            texts.add(&format!("{name}, which has no text: of the licence that it names"), text);
        }
        for (path, text) in own {
            texts.add(&format!("{name}, {path}"), text);
        }
    }
    ensure!(found == linked.len(), "{} crates are linked, and {found} are known", linked.len());
    Ok(texts)
}

/// Name and version of each crate that is linked for `target`.
fn linked(target: &str) -> Result<BTreeSet<String>> {
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", PACKAGE, "--edges", "normal,no-proc-macro", "--target", target]);
    let lines = printed(tree.args(["--prefix", "none", "--format", "{p}"]))?;
    let crates = lines.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut words = line.split(' ');
        let (name, version) = (words.next(), words.next().and_then(|version| version.strip_prefix('v')));
        Ok(format!("{} {}", name.unwrap_or_default(), version.with_context(|| format!("no version in {line:?}"))?))
    });
    crates.collect()
}

/// The texts below `folder`, where the sources of `name` are, by their paths there; `besides` is one more.
fn texts_in(name: &str, folder: &Path, besides: Option<&str>) -> Result<BTreeMap<String, String>> {
    let is_left_out = |path: &str| {
        LEFT_OUT.iter().any(|(whose, what)| *whose == name && path.starts_with(what.trim_end_matches('/')))
    };
    let mut texts = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here).with_context(|| here.display().to_string())? {
            let path = entry?.path();
            let below = path.strip_prefix(folder)?.to_string_lossy().into_owned();
            let is_hidden = below.rsplit('/').next().is_some_and(|file| file.starts_with('.'));
            if is_hidden || is_left_out(&below) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if is_text(&below) || besides == Some(below.as_str()) {
                texts.insert(below, String::from_utf8_lossy(&fs::read(&path)?).into_owned());
            }
        }
    }
    Ok(texts)
}

/// Whether the file is a text by its name, or that of its folder.
fn is_text(path: &str) -> bool {
    let mut parts = path.rsplit('/').take(2);
    let is_named = |part: &str| NAMES.iter().any(|name| part.to_ascii_lowercase().starts_with(name));
    let is_other = OTHER_KINDS.iter().any(|kind| path.ends_with(&format!(".{kind}")));
    !is_other && parts.any(is_named)
}

/// The text of the licence that a crate names without bringing it.
fn named_text(license: &str, name: &str, authors: &[&str]) -> Result<String> {
    let expression = Expression::parse_mode(license, ParseMode::LAX).map_err(|error| anyhow::anyhow!("{error}"))?;
    let taken = TAKEN.map(|one| Licensee::parse(one).expect("a licence of the list"));
    let needed = expression.minimized_requirements(&taken).with_context(|| license.to_owned())?;
    let [needed] = &needed[..] else { bail!("{license} is more than one") };
    let text = needed.license.id().context("a licence of the list")?.text();
    let holders = match authors {
        [] => format!("the authors of {name}"),
        authors => authors.join(", "),
    };
    Ok(text.replace("<year> <copyright holders>", &holders))
}

/// What Rust says of its standard library, which is linked into everything, and of what that is made of.
fn standard_library() -> Result<String> {
    let toolchain = printed(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()))?;
    let file = Path::new(&toolchain).join("share/doc/rust/COPYRIGHT-library.html");
    Ok(plain(&fs::read_to_string(&file).with_context(|| file.display().to_string())?))
}

/// A page without its marks, and without all but one of several empty lines.
fn plain(page: &str) -> String {
    let (mut text, mut rest) = (String::new(), page);
    while let Some((before, mark)) = rest.split_once('<') {
        text.push_str(before);
        rest = mark.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    for (name, sign) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        text = text.replace(name, sign);
    }
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.dedup_by(|after, before| after.is_empty() && before.is_empty());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_known_by_their_names() {
        for text in ["LICENSE", "LICENSE-MIT", "licence.md", "COPYING", "zstd/LICENSE", "LICENSES/MIT.txt", "NOTICE"] {
            assert!(is_text(text), "{text}");
        }
        for other in ["src/license.rs", "license.yml", "README.md", "licenses/made/up/README"] {
            assert!(!is_text(other), "{other}");
        }
    }

    #[test]
    fn a_crate_without_a_text_is_under_that_of_a_licence_that_it_names_or_under_none() {
        let apache = named_text("MIT/Apache-2.0", "one", &[]).unwrap();
        assert!(apache.starts_with("Apache License"));
        let mit = named_text("MIT", "one", &["Somebody"]).unwrap();
        assert!(mit.contains("Copyright (c) Somebody\n"), "{mit}");
        assert!(named_text("MIT", "one", &[]).unwrap().contains("the authors of one"));
        for unknown in ["BSD-3-Clause", "MIT AND BSD-3-Clause", "", "Apache-2.0 AND MIT"] {
            assert!(named_text(unknown, "one", &[]).is_err(), "{unknown}");
        }
    }

    #[test]
    fn of_a_page_its_words_stay() {
        let page = "<h1>A &amp; B</h1>\n\n<br/>\n \n<pre>1 &lt; 2 &#39;x&#39;</pre>\n";
        assert_eq!(plain(page), "A & B\n\n1 < 2 'x'");
    }
}
