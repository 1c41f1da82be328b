//! `varve tier forget`: the archive of a topic that the cluster does not know is given up.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use varve_metadata::{cluster::give_up, model::TopicId, store::StoreError};
use varve_tiering::tier::manifests::ManifestStore;

use super::manifests_of;
use crate::{
    cli::{ConfigurationArgs, out::Out},
    node::open_store,
};

/// Arguments of `varve tier forget`.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(in crate::cli) struct ForgetArgs {
    /// The topic's id, as the log of the sweep and `varve tier describe` say it.
    id: TopicId,
    /// Do it. Without it nothing changes.
    #[arg(long)]
    confirm: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

const NOTES: &str = "\
For an archive of which the log says that the cluster does not know its topic, and that nobody is known to have deleted it: the
cluster's state was put back to an older one, which lacks every topic that was made since. Such an archive is kept.

With --confirm the cluster is told that the topic was deleted. Its objects go with a sweep after varve.archive.grace.ms, and do not come
back. A topic that the cluster knows is refused: delete it with kafka-topics.sh --delete.

Of one node that agrees with itself the metadata is a file, which only one process opens: stop it first.

Examples:
  varve tier forget 9hGLAZiRTqSS1KtVYVLbvg              what would go
  varve tier forget 9hGLAZiRTqSS1KtVYVLbvg --confirm    give it up";

pub(super) async fn forget(
    manifests: &ManifestStore,
    asked: &ForgetArgs,
    configuration: &ConfigurationArgs,
) -> anyhow::Result<ExitCode> {
    let (found, broken) = manifests_of(manifests, None).await?;
    for (partition, problem) in broken.iter().filter(|(partition, _)| partition.topic == asked.id) {
        eprintln!("the manifest of partition {} cannot be read: {problem}", partition.index);
    }
    let of_it: Vec<_> = found.iter().filter(|manifest| manifest.partition().topic == asked.id).collect();
    let Some(name) = of_it.first().map(|manifest| manifest.topic().clone()) else {
        bail!("nothing is archived of a topic with the id {} in {}", asked.id, manifests.bucket().url());
    };
    if asked.confirm {
        let store = open_store(&configuration.load()?.config).await?;
        match give_up(store.as_ref(), asked.id, &name).await {
            Ok(()) => {}
            Err(StoreError::Conflict) => {
                bail!("the cluster has the topic {name}: delete it with kafka-topics.sh --delete")
            }
            Err(error) => return Err(error).context("the metadata store does not say that it has taken it"),
        }
    }
    let outcome = if asked.confirm {
        "given up: its objects go after the grace period"
    } else {
        "kept: say --confirm to give it up"
    };
    let mut out = Out::new(asked.json);
    out.line(
        0,
        &[
            ("topic", json!(name.as_str())),
            ("id", json!(asked.id.to_string())),
            ("partitions", json!(of_it.len())),
            ("outcome", json!(outcome)),
        ],
    )?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
