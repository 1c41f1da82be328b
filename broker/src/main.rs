//! The varve binary.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use varve_broker::{
    cli::{Asked, Cli},
    config::{BrokerConfig, Loaded},
    logging,
    node::{CompactorNode, Node, StartError},
    traces::Exporter,
};

/// Keeps the resident size steady while large buffers come and go.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let done = Cli::parse().answer().and_then(|asked| match asked {
        Asked::Done(code) => Ok(code),
        Asked::Start(arguments) => start(arguments.load()?).map(|()| ExitCode::SUCCESS),
    });
    done.unwrap_or_else(|error| {
        eprintln!("varve: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(Loaded { config, warnings }: Loaded) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().context("starting the runtime")?;
    let traces = Exporter::new(&config.traces, config.node.0, runtime.handle().clone())
        .context("starting the export of traces (varve.trace.endpoint)")?;
    let levels = logging::start(&config.self_log, traces.as_ref());
    for warning in warnings {
        warn!("{warning}");
    }
    allow_many_connections();
    let ended = runtime.block_on(run(Arc::new(config), levels));
    if let Some(traces) = traces {
        traces.close();
    }
    // What still works on files when a start is broken off, recovery for one, goes with the process.
    runtime.shutdown_background();
    ended
}

/// Takes as many open files as the system allows: each connection and each segment is one, and the usual soft limit of 1024 is
/// meant for programs that use `select`.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files stays as it was");
    }
}

/// Runs a node until SIGTERM or SIGINT, or until it cannot go on.
async fn run(config: Arc<BrokerConfig>, levels: varve_broker::server::LogLevels) -> anyhow::Result<()> {
    if !config.roles.broker {
        return compact(config).await;
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let node = tokio::select! {
        started = Node::start(config.clone(), levels) => started?,
        // In a cluster a start may wait for others without end. What it has done so far is as after a crash, which nobody minds.
        _ = terminate.recv() => return stopped_early(),
        _ = interrupt.recv() => return stopped_early(),
    };
    greet(&config, &node);
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        why = node.failed() => {
            error!("{why}");
            Err(why.into())
        }
    };
    node.stop().await;
    ended
}

/// The same for a process that only rewrites the archive.
async fn compact(config: Arc<BrokerConfig>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let node = tokio::select! {
        started = CompactorNode::start(config) => started?,
        _ = terminate.recv() => return stopped_early(),
        _ = interrupt.recv() => return stopped_early(),
    };
    let ended: Result<(), StartError> = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        why = node.failed() => {
            error!("{why}");
            Err(why)
        }
    };
    node.stop().await;
    Ok(ended?)
}

fn stopped_early() -> anyhow::Result<()> {
    info!("stopped before the start was complete");
    Ok(())
}

/// Says what to do next, for whoever started the node by hand.
fn greet(config: &BrokerConfig, node: &Node) {
    let (data, address) = (config.data_dir.display(), node.address());
    info!(
        "varve is ready. Data is in {data}. Next: kcat -b {address} -t logs -P -l FILE, and back: kcat -b {address} -t \
         logs -C -e; README.md shows how it becomes Parquet. Ctrl-C stops."
    );
}
