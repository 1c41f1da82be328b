//! `varve`'s subcommands, asked beside a node of the same folder and settings.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    client::Client,
    node::{Node, eventually, varve},
    tools,
};

/// How a node of a test is configured, so that subcommands find its archive too.
pub struct Asked {
    folder: PathBuf,
    file: Option<String>,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Asked {
    /// A node in `folder`, with its archive in `./varve-data`.
    pub fn of(folder: &Path) -> Asked {
        Asked { folder: folder.to_owned(), file: None, settings: Vec::new(), environment: Vec::new() }
    }

    /// The same with a configuration file below the settings.
    #[must_use]
    pub fn with_file(mut self, file: &str) -> Asked {
        self.file = Some(file.to_owned());
        self
    }

    /// The same with settings (`name=value`).
    #[must_use]
    pub fn with_settings(mut self, settings: &[&str]) -> Asked {
        self.settings.extend(settings.iter().map(|line| (*line).to_owned()));
        self
    }

    /// The same with variables.
    #[must_use]
    pub fn with_environment(mut self, variables: &[(&str, &str)]) -> Asked {
        self.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// Starts the node.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start(&self) -> Result<Node> {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        Node::launch(&self.folder, self.command()?, &settings)
    }

    /// The node as a command, on free ports: for one that is watched before it serves.
    ///
    /// # Errors
    /// The binary is not there.
    pub fn node(&self) -> Result<Command> {
        let mut command = self.command()?;
        let ports = ["listeners=PLAINTEXT://127.0.0.1:0", "varve.http.listener=127.0.0.1:0"];
        for line in ports.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["--override", line]);
        }
        command.current_dir(&self.folder);
        Ok(command)
    }

    /// The lines that `varve ARGUMENTS --json` prints, each parsed.
    ///
    /// # Errors
    /// It cannot start or fails, or a line is no JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut command = self.command()?;
        command.args(arguments).arg("--json");
        for line in &self.settings {
            command.args(["--override", line]);
        }
        let printed = tools::output_of(command.current_dir(&self.folder))?;
        printed.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Waits until all of `topic` is in the archive alone, as Parquet; its records by their offsets.
    ///
    /// # Errors
    /// Not within the time of [`eventually`].
    pub fn only_parquet_is_left(&self, node: &Node, topic: &str, partitions: i32) -> Result<u64> {
        let mut client = Client::connect(node.address)?;
        let mut total = 0;
        for partition in 0..partitions {
            let end = client.list_offset(topic, partition, -1)?;
            total += end as u64;
            eventually(&format!("{topic}-{partition} has left the local disk"), || {
                let local_start = client.list_offset(topic, partition, -4)?;
                let last_tiered = client.list_offset(topic, partition, -5)?;
                Ok((local_start == end && last_tiered + 1 == end).then_some(()))
            })?;
        }
        eventually(&format!("{topic} is Parquet alone"), || {
            // An object that it would look at may have become another one meanwhile.
            let described = self.ask(&["tier", "describe", topic]).unwrap_or_default();
            let only_parquet = described.iter().all(|line| line["raw_objects"] == 0);
            Ok((only_parquet && !described.is_empty()).then_some(()))
        })?;
        Ok(total)
    }

    fn command(&self) -> Result<Command> {
        let mut command = varve()?;
        if let Some(file) = &self.file {
            command.args(["--config", file]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}
