//! A member of a consumer group in a process of its own: one of the test clients (tests/clients/README.md).

use std::{
    cell::RefCell,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{node::eventually, tools};

/// Partition and offset.
pub type Place = (i64, i64);

/// Which group a member joins, and what it reads there.
#[derive(Clone, Copy, Debug)]
pub struct Membership<'a> {
    /// Where the group is.
    pub bootstrap: SocketAddr,
    /// What it subscribes to.
    pub topic: &'a str,
    /// The group's id.
    pub group: &'a str,
}

/// A running member; killed when dropped.
pub struct Member {
    process: RefCell<Child>,
    /// Open as long as it is to stay.
    input: Option<ChildStdin>,
    output: PathBuf,
}

impl Member {
    /// Has the client of `library` join, with `options` besides; what it reads and prints goes to files called `name` in
    /// `folder`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(at: Membership<'_>, folder: &Path, library: &str, name: &str, options: &[&str]) -> Result<Member> {
        let output = folder.join(format!("{name}.jsonl"));
        let mut command = tools::client(library)?;
        let address = at.bootstrap.to_string();
        command.args(["group", "--bootstrap", &address, "--topic", at.topic, "--group", at.group]);
        command.args(options).arg("--output").arg(&output).stdin(Stdio::piped());
        let log = fs::File::create(folder.join(format!("{name}.log")))?;
        command.stdout(log.try_clone()?).stderr(log);
        let mut process = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let input = process.stdin.take();
        Ok(Member { process: RefCell::new(process), input, output })
    }

    /// What it has read so far, in order.
    ///
    /// # Errors
    /// It ended by itself, or what it wrote is not what a client writes.
    pub fn read(&self) -> Result<Vec<Place>> {
        if let (Some(_), Some(status)) = (&self.input, self.process.borrow_mut().try_wait()?) {
            bail!("{} ended by itself with {status}\n{}", self.output.display(), self.printed()?);
        }
        let text = match fs::read_to_string(&self.output) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        // The last line may still be on its way.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let places = whole.map(|line| {
            let record: serde_json::Value = serde_json::from_str(line)?;
            let number = |name| record[name].as_i64().with_context(|| format!("{name} in {line}"));
            Ok((number("partition")?, number("offset")?))
        });
        places.collect()
    }

    /// Has it leave the group, and waits until it has.
    ///
    /// # Errors
    /// It does not end well; with what it printed.
    pub fn leave(&mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.process.get_mut().wait()?;
        ensure!(status.success(), "{} ended with {status}\n{}", self.output.display(), self.printed()?);
        Ok(())
    }

    /// Waits until it fails by itself; what it printed.
    ///
    /// # Errors
    /// It goes on, or ends well.
    pub fn failure(&mut self) -> Result<String> {
        let status = eventually("a member fails", || Ok(self.process.get_mut().try_wait()?))?;
        ensure!(!status.success(), "{} ended well", self.output.display());
        self.printed()
    }

    fn printed(&self) -> Result<String> {
        Ok(fs::read_to_string(self.output.with_extension("log"))?)
    }

    /// Ends it without a word to its group.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn crash(&mut self) -> Result<()> {
        self.input = None;
        self.process.get_mut().kill()?;
        self.process.get_mut().wait()?;
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let process = self.process.get_mut();
        let _ = process.kill();
        let _ = process.wait();
    }
}
