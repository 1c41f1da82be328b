//! `varve dump`: what a file of a log directory or an object of the archive holds.

mod batches;
mod indexes;
pub(super) mod objects;
mod state;

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use varve_tiering::layout::{self, Named};

use super::ConfigurationArgs;
use super::content::Content;
use super::out::{Out, is_closed_pipe};

/// Arguments of `varve dump`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct DumpArgs {
    /// A path, a URL (file://, s3://, gs://, az://), or a key of the configured object store.
    #[arg(value_name = "FILE-or-OBJECT")]
    name: String,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Print each record, not only each batch.
    #[arg(long)]
    deep: bool,
    /// What it is, where its name does not tell.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

const EXAMPLES: &str = "\
Examples:
  varve dump varve-data/log/logs-0/00000000000000000000.log --deep   records of a segment
  varve dump varve-data/log/logs-0/00000000000000000000.timeindex    where timestamps begin
  varve dump s3://bucket/tables/logs/data/partition=0/….parquet      batches of an archived object
  varve dump manifests/…/0/00000000000000000007                      a manifest of the configured object store

Damage is reported where it is found, and makes the exit code 1.";

/// What a file or object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Record batches: a segment's .log.
    Segment,
    /// Offsets and their positions: .index.
    Index,
    /// Timestamps and their offsets: .timeindex.
    Timeindex,
    /// Aborted transactions: .txnindex.
    Txnindex,
    /// Producers: .snapshot.
    Snapshot,
    /// leader-epoch-checkpoint.
    Epochs,
    /// A manifest of the archive.
    Manifest,
    /// A leaf of a manifest.
    Leaf,
    /// An uploaded segment.
    Raw,
    /// An archived table.
    Parquet,
    /// A copy of the cluster's state: its keys.
    State,
}

impl Kind {
    /// The kind that a name tells: by its ending in a log directory, by its place in the bucket.
    pub(super) fn of(name: &str) -> Option<Kind> {
        let file = name.rsplit('/').next().unwrap_or(name);
        // Files on their way out or in keep what they hold.
        let file = ["deleted", "cleaned", "swap"].iter().fold(file, |file, suffix| {
            file.strip_suffix(suffix).and_then(|file| file.strip_suffix('.')).unwrap_or(file)
        });
        let by_ending = match file.rsplit_once('.').map(|(_, ending)| ending) {
            Some("log") => Some(Kind::Segment),
            Some("index") => Some(Kind::Index),
            Some("timeindex") => Some(Kind::Timeindex),
            Some("txnindex") => Some(Kind::Txnindex),
            Some("snapshot") => Some(Kind::Snapshot),
            Some("parquet") => Some(Kind::Parquet),
            _ if file == varve_log::local::LEADER_EPOCH_CHECKPOINT => Some(Kind::Epochs),
            _ => None,
        };
        // The bucket's prefix, or the directory that it is, may stand before the key.
        let places = name.match_indices('/').map(|(at, _)| at + 1);
        by_ending.or_else(|| {
            std::iter::once(0).chain(places).find_map(|at| match layout::parse(&name[at..])? {
                Named::Manifest(..) => Some(Kind::Manifest),
                Named::Leaf(..) => Some(Kind::Leaf),
                Named::Raw { .. } | Named::Shared(_) => Some(Kind::Raw),
                Named::Table { .. } => Some(Kind::Parquet),
                Named::Snapshot(_) => Some(Kind::State),
                Named::Cluster | Named::Meta | Named::TableMetadata(_) => None,
            })
        })
    }
}

pub(super) async fn answer(arguments: DumpArgs, configuration: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    let Some(kind) = arguments.kind.or_else(|| Kind::of(&arguments.name)) else {
        bail!("the name {} does not tell what it is: say it with --kind", arguments.name);
    };
    let store = configuration.load()?.config.object_store;
    let content = Content::open(&arguments.name, &store).await?;
    let mut out = Out::new(arguments.json);
    let printed = print(kind, &content, &arguments.name, arguments.deep, &mut out).await;
    // What was found before the damage is shown first.
    let flushed = out.finish().map(drop).map_err(anyhow::Error::from);
    match printed.and(flushed) {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{}: {error:#}", arguments.name);
            Ok(ExitCode::FAILURE)
        }
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

pub(super) async fn print<W: Write>(
    kind: Kind,
    content: &Content,
    name: &str,
    deep: bool,
    out: &mut Out<W>,
) -> anyhow::Result<()> {
    match kind {
        Kind::Segment => batches::segment(content, 0..content.len(), deep, out).await,
        Kind::Index => indexes::offsets(content, name, out).await,
        Kind::Timeindex => indexes::timestamps(content, name, out).await,
        Kind::Txnindex => indexes::transactions(content, out).await,
        Kind::Snapshot => indexes::producers(content, out).await,
        Kind::Epochs => indexes::epochs(content, out).await,
        Kind::Manifest => objects::manifest(content, out).await,
        Kind::Leaf => objects::leaf(content, out).await,
        Kind::Raw => objects::raw(content, deep, out).await,
        Kind::Parquet => objects::parquet(content, deep, out).await,
        Kind::State => state::snapshot(content, out).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_files_and_objects_are() {
        let topic = "AAAAAAAAAAAAAAAAAAAAAQ";
        for (name, expected) in [
            ("varve-data/log/logs-0/00000000000000000000.log", Some(Kind::Segment)),
            ("00000000000000000000.timeindex.deleted", Some(Kind::Timeindex)),
            ("00000000000000000000.log.cleaned", Some(Kind::Segment)),
            ("/x/leader-epoch-checkpoint", Some(Kind::Epochs)),
            ("s3://bucket/tables/t/data/partition=0/x.parquet", Some(Kind::Parquet)),
            ("notes.txt", None),
        ] {
            assert_eq!(Kind::of(name), expected, "{name}");
        }
        let partition = varve_metadata::model::PartitionId {
            topic: varve_metadata::model::TopicId::random(),
            index: varve_metadata::model::PartitionIndex::from_wire(3).unwrap(),
        };
        let key = layout::manifest(partition, layout::Version(7));
        assert_eq!(Kind::of(&format!("/srv/archive/{key}")), Some(Kind::Manifest), "{topic}");
        assert_eq!(Kind::of(key.as_str()), Some(Kind::Manifest));
    }
}
