//! Follows every change under the prefix, through breaks of the connection, compactions and restored backups.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;
use tonic::Streaming;

use super::{
    RANGE, end_of_prefix, from_wire,
    messages::{self, Event, RangeRequest, RangeResponse, WatchAsk, WatchCreateRequest, WatchRequest, WatchResponse},
    own_key,
    rpc::{CallError, Rpc},
    to_wire,
};
use crate::store::{
    Revision,
    feed::{Change, Feed},
};

/// Pauses between attempts to open the stream again; the last one is kept.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];

/// The revision that etcd stands at.
pub(super) async fn newest_revision(rpc: &Rpc, root: &str) -> Result<Revision, CallError> {
    let ask =
        RangeRequest { key: Bytes::copy_from_slice(root.as_bytes()), range_end: Bytes::new(), limit: 1, revision: 0 };
    let answer: RangeResponse = rpc.read(RANGE, &ask).await?;
    Ok(answer.header.map_or(Revision(0), |header| from_wire(header.revision)))
}

/// Why a stream ended.
enum Ended {
    /// The connection broke, or its member lost the others.
    Broken,
    /// What came after the revision that we saw last is not kept any more, or never was: begin from what is there now.
    Lost,
    /// Nobody watches any more.
    Unwanted,
}

/// Publishes every change after `seen` to the feed, until the feed is gone.
pub(super) async fn follow(rpc: Arc<Rpc>, root: String, feed: Weak<Feed>, mut seen: Revision) {
    let mut failures = 0;
    loop {
        let member = rpc.member_in_use();
        let before = seen;
        let ended = match open(&rpc, &root, seen).await {
            Ok(stream) => read(stream, &root, &feed, &mut seen).await,
            Err(status) => {
                tracing::warn!(%status, "etcd cannot be watched, trying again");
                Ended::Broken
            }
        };
        match ended {
            Ended::Unwanted => return,
            Ended::Broken => rpc.turn_from(member),
            Ended::Lost => match newest_revision(&rpc, &root).await {
                Ok(now) => {
                    tracing::info!(revision = now.0, "changes in etcd were missed, reading everything anew");
                    let Some(feed) = feed.upgrade() else { return };
                    feed.reset(now);
                    seen = now;
                }
                Err(error) => tracing::warn!(?error, "etcd cannot be read, trying again"),
            },
        }
        failures = if seen > before { 0 } else { failures + 1 };
        sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
    }
}

async fn open(rpc: &Rpc, root: &str, seen: Revision) -> Result<Streaming<WatchResponse>, tonic::Status> {
    let create = WatchCreateRequest {
        key: Bytes::copy_from_slice(root.as_bytes()),
        range_end: end_of_prefix(root.as_bytes()),
        start_revision: to_wire(seen.0 + 1),
    };
    rpc.open("/etcdserverpb.Watch/Watch", WatchRequest { ask: Some(WatchAsk::Create(create)) }).await
}

async fn read(mut stream: Streaming<WatchResponse>, root: &str, feed: &Weak<Feed>, seen: &mut Revision) -> Ended {
    loop {
        let answer = match stream.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Ended::Broken,
            Err(status) => {
                tracing::warn!(%status, "the watch of etcd broke, opening it again");
                return Ended::Broken;
            }
        };
        if answer.canceled {
            let lost = answer.compact_revision > 0;
            tracing::warn!(reason = %answer.cancel_reason, lost, "etcd ended the watch");
            return if lost { Ended::Lost } else { Ended::Broken };
        }
        // An etcd that was put back to an older state would be silent until it came to where it was once.
        let stands_at = answer.header.map_or(Revision(0), |header| from_wire(header.revision));
        if answer.created && stands_at < *seen {
            return Ended::Lost;
        }
        let Some(feed) = feed.upgrade() else { return Ended::Unwanted };
        for (revision, changes) in by_revision(root, answer.events) {
            feed.publish_changes(revision, changes);
            *seen = revision;
        }
    }
}

/// The events of each revision together, in order: a transaction is one change.
fn by_revision(root: &str, events: Vec<Event>) -> Vec<(Revision, Vec<Change>)> {
    let mut batches: Vec<(Revision, Vec<Change>)> = Vec::new();
    for Event { kind, kv } in events {
        let Some(kv) = kv else { continue };
        let Some(key) = own_key(root, &kv.key) else { continue };
        let value = (kind != messages::DELETE).then_some(kv.value);
        let change = Change { key: key.to_owned(), value };
        let revision = from_wire(kv.mod_revision);
        match batches.last_mut() {
            Some((last, changes)) if *last == revision => changes.push(change),
            _ => batches.push((revision, vec![change])),
        }
    }
    batches
}
