//! A real S3 server for tests: moto, started on a free port here or on a host of a [`Network`](crate::network), gone with the
//! test process.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{network::Host, running::signal, tools};

/// Ends the server when its standard input does, which the system closes even if the test process is killed.
///
/// The emulator looks for an object and then creates it, on several threads: two racing conditional PUTs may both win,
/// which S3 rules out. So it does one object request at a time.
///
/// Route 53 gives up a zone's SOA with the zone alone, where the emulator takes it away: what is destroyed here must be so there.
const SERVER: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.s3.responses import S3Response
serve, one_at_a_time = S3Response._key_response, threading.RLock()
def serialised(self, *arguments):
    with one_at_a_time:
        return serve(self, *arguments)
S3Response._key_response = serialised
from moto.route53.exceptions import Route53ClientError
from moto.route53.models import Route53Backend
change = Route53Backend.change_resource_record_sets
def keeping_authorities(self, zone, changes):
    for one in changes:
        if one['Action'] == 'DELETE' and one['ResourceRecordSet']['Type'] == 'SOA':
            raise Route53ClientError('InvalidChangeBatch', 'A HostedZone must contain exactly one SOA record.')
    return change(self, zone, changes)
Route53Backend.change_resource_record_sets = keeping_authorities
from moto.server import main
main(['-H', sys.argv[1], '-p', '0'])
";

/// A running emulator.
pub struct S3Emulator {
    child: Child,
    address: SocketAddr,
}

impl S3Emulator {
    /// Starts the emulator of the test tools and waits until it answers.
    ///
    /// # Errors
    /// The tools are missing ([`tools::folder`]), or the server does not start.
    pub fn start() -> Result<S3Emulator> {
        S3Emulator::launch(None)
    }

    /// The same on a host of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on(host: &Host) -> Result<S3Emulator> {
        S3Emulator::launch(Some(host))
    }

    fn launch(host: Option<&Host>) -> Result<S3Emulator> {
        let python = tools::folder()?.join("venv/bin/python");
        let mut command = Command::new(&python);
        let address = host.map_or(Ipv4Addr::LOCALHOST, |host| host.address);
        command.args(["-u", "-c", SERVER, &address.to_string()]);
        if let Some(host) = host {
            command = host.command(&command);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}: run `cargo xtask tools`", python.display()))?;
        let errors = child.stderr.take().context("standard error was asked for")?;
        let mut lines = BufReader::new(errors).lines();
        let mut said = String::new();
        let address = loop {
            let Some(line) = lines.next().transpose()? else { bail!("moto did not start:\n{said}") };
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().parse().with_context(|| format!("moto listens on {address:?}"))?;
            }
            said.push_str(&line);
            said.push('\n');
        };
        // Somebody has to read its log of requests, or it stops at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(S3Emulator { child, address })
    }

    /// Has it hang, or go on after that: its connections stay open, and nobody answers there.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn freeze(&self, is_frozen: bool) -> Result<()> {
        signal(self.child.id(), if is_frozen { "-STOP" } else { "-CONT" })
    }

    /// Ends it, for good.
    pub fn stop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// The server refuses.
    pub fn make_bucket(&self, name: &str) -> Result<()> {
        let mut server = TcpStream::connect(self.address)?;
        let host = self.address;
        write!(server, "PUT /{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        server.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { bail!("no bucket {name}: {answer}") }
    }
}

impl Drop for S3Emulator {
    fn drop(&mut self) {
        self.stop();
    }
}
