//! AWS's command line, asked against an emulator of AWS, as somebody: who made everything, or in a role.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::tools;

/// Somebody who asks the emulator.
#[derive(Clone)]
pub struct Caller {
    emulator: SocketAddr,
    credentials: Vec<(&'static str, String)>,
}

impl Caller {
    /// Who the emulator takes for the account's owner.
    pub fn owner(emulator: SocketAddr) -> Caller {
        let credentials = vec![("AWS_ACCESS_KEY_ID", "test".to_owned()), ("AWS_SECRET_ACCESS_KEY", "test".to_owned())];
        Caller { emulator, credentials }
    }

    /// This caller in another role.
    ///
    /// # Errors
    /// The role is not there, or not for this caller.
    pub fn assume(&self, role: &str) -> Result<Caller> {
        let answer = self.ask(&["sts", "assume-role", "--role-session-name", "test", "--role-arn", role])?;
        let field = |name: &str| {
            answer["Credentials"][name].as_str().map(str::to_owned).with_context(|| format!("{role} has no {name}"))
        };
        let credentials = vec![
            ("AWS_ACCESS_KEY_ID", field("AccessKeyId")?),
            ("AWS_SECRET_ACCESS_KEY", field("SecretAccessKey")?),
            ("AWS_SESSION_TOKEN", field("SessionToken")?),
        ];
        Ok(Caller { emulator: self.emulator, credentials })
    }

    /// What a process needs in its environment to ask as this caller.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = self.credentials.clone();
        environment.push(("AWS_ENDPOINT_URL", format!("http://{}", self.emulator)));
        environment.push(("AWS_DEFAULT_REGION", "us-east-1".to_owned()));
        environment.push(("AWS_REGION", "us-east-1".to_owned()));
        // Nobody's own settings, and nobody waits for what an emulator refuses.
        environment.push(("AWS_CONFIG_FILE", "/dev/null".to_owned()));
        environment.push(("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()));
        environment.push(("AWS_EC2_METADATA_DISABLED", "true".to_owned()));
        environment.push(("AWS_MAX_ATTEMPTS", "1".to_owned()));
        environment
    }

    /// The answer to one request of `aws`.
    ///
    /// # Errors
    /// It is refused, with what `aws` printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let printed = tools::output_of(&mut self.command(arguments)?)?;
        if printed.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&printed)?) }
    }

    /// Makes sure that a request is refused, because this caller may not.
    ///
    /// # Errors
    /// It is not refused, or for another reason.
    pub fn is_refused(&self, arguments: &[&str]) -> Result<()> {
        let Output { status, stderr, .. } = self.command(arguments)?.output()?;
        let said = String::from_utf8_lossy(&stderr);
        ensure!(!status.success(), "aws {arguments:?} was done");
        let is_denied = ["AccessDenied", "UnauthorizedOperation", "(403)"].iter().any(|word| said.contains(word));
        ensure!(is_denied, "aws {arguments:?} failed, but was not refused: {said}");
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = tools::program("aws")?;
        command.args(["--output", "json"]).args(arguments).envs(self.environment());
        Ok(command)
    }
}

/// From the next request on moto asks policies who may do what, or (`false`) lets everybody do everything again.
///
/// # Errors
/// The emulator does not answer.
pub fn enforce_policies(emulator: SocketAddr, enforce: bool) -> Result<()> {
    let unchecked = if enforce { "0" } else { "inf" };
    let mut server = TcpStream::connect(emulator)?;
    write!(
        server,
        "POST /moto-api/reset-auth HTTP/1.1\r\nHost: {emulator}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{unchecked}",
        unchecked.len()
    )?;
    let mut answer = String::new();
    server.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}
