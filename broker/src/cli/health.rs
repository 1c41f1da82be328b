//! `varve health`: what `/healthz`, `/readyz` and `/insyncz` of a node say, for those who have no HTTP client at hand: containers, scripts.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{ConfigurationArgs, print};
use crate::config::reachable_here;

/// Arguments of `varve health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Ask whether it serves clients (/readyz), and not only whether it lives (/healthz).
    #[arg(long, conflicts_with = "in_sync")]
    ready: bool,
    /// Ask whether it serves clients and its replicas were all in sync since its start (/insyncz): whether its restart is over.
    #[arg(long)]
    in_sync: bool,
    /// Ask there instead of at varve.http.listener.
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,
    /// Ask again until it is so, for at most so long.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    wait_seconds: u64,
}

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(250);
/// Most bytes of an answer that are read.
const MOST_BYTES: u64 = 64 << 10;

pub(super) async fn answer(arguments: HealthArgs, configuration: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    let address = match arguments.address {
        Some(address) => address,
        None => configuration.load()?.config.http.context("varve.http.listener is empty: nothing can be asked")?,
    };
    let path = match (arguments.in_sync, arguments.ready) {
        (true, _) => "/insyncz",
        (false, true) => "/readyz",
        (false, false) => "/healthz",
    };
    let address = reachable_here(address);
    let deadline = Instant::now() + Duration::from_secs(arguments.wait_seconds);
    loop {
        let asked = timeout(ANSWER_LIMIT, ask(address, path)).await.context("no answer").flatten();
        match asked {
            Ok((true, said)) => {
                print(&said)?;
                return Ok(ExitCode::SUCCESS);
            }
            _ if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            Ok((false, said)) => {
                print(&said)?;
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error.context(format!("{address}{path}"))),
        }
    }
}

/// Whether the page's status is 200, and what it says.
async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(bool, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: varve\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut bytes).await?;
    let text = String::from_utf8(bytes).context("the answer is not text")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no head")?;
    let status = head.split_whitespace().nth(1).context("the answer has no status")?;
    ensure!(head.starts_with("HTTP/1."), "the answer is not HTTP");
    Ok((status == "200", body.to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        http::{Health, HttpServer},
        metrics::Metrics,
    };

    #[tokio::test]
    async fn a_node_is_asked_whether_it_lives_whether_it_serves_and_whether_it_is_in_sync() {
        let server = HttpServer::bind(([0, 0, 0, 0], 0).into()).await.unwrap();
        let (address, health, stop) = (server.local_addr(), Health::starting(), CancellationToken::new());
        tokio::spawn(server.serve(Metrics::new(), health.clone(), stop.clone()));
        let asked = async |page| {
            let (ready, in_sync) = (page == "ready", page == "in sync");
            let arguments = HealthArgs { ready, in_sync, address: Some(address), wait_seconds: 0 };
            format!("{:?}", answer(arguments, &ConfigurationArgs::default()).await.unwrap())
        };
        let (yes, no) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        assert_eq!((asked("lives").await, asked("ready").await), (yes.clone(), no.clone()));
        health.behind(Some("t-0".to_owned()));
        health.ready();
        assert_eq!((asked("ready").await, asked("in sync").await), (yes.clone(), no));
        health.behind(None);
        assert_eq!(asked("in sync").await, yes);
        stop.cancel();
    }
}
