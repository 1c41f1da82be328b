//! `varve broker …`, asked of a cluster.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Cluster;
use crate::node::varve;

/// The command, against whichever broker runs.
///
/// # Errors
/// There is no `varve`.
pub fn varve_broker(cluster: &Cluster, arguments: &[&str]) -> Result<Command> {
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let mut command = varve()?;
    command.arg("broker").args(arguments).args(["--bootstrap-server", &addresses.join(",")]);
    Ok(command)
}

/// Whether it ended with success, and the lines that it printed, which `--json` is part of `arguments` for.
///
/// # Errors
/// It printed none, or such that are not JSON.
pub fn told(cluster: &Cluster, arguments: &[&str]) -> Result<(bool, Vec<Value>)> {
    let Output { status, stdout, stderr } = varve_broker(cluster, arguments)?.output()?;
    let (printed, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let lines = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let lines = lines.with_context(|| format!("varve broker {arguments:?}: {printed}\n{errors}"))?;
    ensure!(!lines.is_empty(), "varve broker {arguments:?} ended with {status}:\n{errors}");
    Ok((status.success(), lines))
}

/// Whether one of the lines tells of that state.
pub fn is_there(lines: &[Value], state: &str) -> bool {
    lines.iter().any(|line| line["state"] == state)
}
