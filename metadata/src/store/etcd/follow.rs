//! Follows every change under the prefix, through breaks of the connection and compactions, and notices when etcd was put back.
//!
//! | what etcd shows                                                 | what it means                                          |
//! |-----------------------------------------------------------------|--------------------------------------------------------|
//! | the members' name for themselves is another one                 | restored or made anew under another token: put back    |
//! | a majority stands below what was seen                           | the same under the token of before: put back           |
//! | something else by the revision that was seen last               | the same, and so much was written since: put back      |
//! | what was seen last is compacted, or was written by others       | all is read anew; whoever does compares (image/history) |
//! | one member stands below what was seen, and a majority does not  | it lags: another one is asked                          |

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;
use tonic::{Status, Streaming};

use super::{
    RANGE, end_of_prefix, from_wire,
    messages::{
        self, Event, RangeRequest, RangeResponse, ResponseHeader, WatchAsk, WatchCreateRequest, WatchRequest,
        WatchResponse,
    },
    own_key,
    rpc::{CallError, Rpc},
    to_wire,
};
use crate::store::{
    PutBack, Revision,
    feed::{Change, Feed},
};

/// Pauses between attempts to open the stream again; the last one is kept.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];

/// What etcd says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its members' name for themselves: it stays the same while members come and go, and is another one after they were made anew,
    /// unless they have the addresses and the token of before. 0: it does not say.
    pub(super) etcd: u64,
    /// What it has taken, in whichever member.
    pub(super) revision: Revision,
}

impl Standing {
    fn of(header: &ResponseHeader) -> Standing {
        Standing { etcd: header.cluster_id, revision: from_wire(header.revision) }
    }
}

/// Where etcd stands by the word of a majority.
pub(super) async fn standing(rpc: &Rpc, root: &str) -> Result<Standing, CallError> {
    let ask =
        RangeRequest { key: Bytes::copy_from_slice(root.as_bytes()), range_end: Bytes::new(), limit: 1, revision: 0 };
    let answer: RangeResponse = rpc.read(RANGE, &ask).await?;
    let header = answer.header.ok_or_else(|| CallError::Not(Status::internal("etcd does not say where it stands")))?;
    Ok(Standing::of(&header))
}

/// Whether that is an etcd of other members, or of members that were made anew.
pub(super) fn is_another(before: u64, now: u64) -> bool {
    before != 0 && now != 0 && before != now
}

/// How far etcd was followed.
struct Followed {
    etcd: u64,
    seen: Revision,
    /// What revision `seen` changed; empty if that was not seen.
    last: Vec<Change>,
}

impl Followed {
    /// Whether an etcd that stands there can be the one that was followed.
    fn check(&self, now: Standing) -> Result<(), PutBack> {
        if is_another(self.etcd, now.etcd) {
            return Err(PutBack::Another { before: self.etcd, now: now.etcd });
        }
        if now.revision < self.seen {
            return Err(PutBack::Behind { seen: self.seen, now: now.revision });
        }
        Ok(())
    }

    /// The first revision to ask for. What was seen last comes again: an etcd that was put back, and has taken as much since, knows
    /// something else by that number.
    fn from(&self) -> Revision {
        if self.last.is_empty() { Revision(self.seen.0 + 1) } else { self.seen }
    }

    /// Takes the first revision of a stream that begins with `seen`.
    fn take_repeated(&self, revision: Revision, changes: &[Change]) -> Result<(), Ended> {
        match revision == self.seen {
            // Some of it may be compacted: values that were replaced since, and removals.
            true if changes.iter().all(|change| self.last.contains(change)) => Ok(()),
            true => Err(Ended::PutBack(PutBack::Rewritten { revision })),
            // Compacted, or of another history, in which others wrote that revision: what is there now tells.
            false => Err(Ended::Lost),
        }
    }
}

/// Why a stream ended.
enum Ended {
    /// The connection broke, or its member lost the others.
    Broken,
    /// What came after the revision that we saw last is not kept any more: begin from what is there now.
    Lost,
    /// This member is behind what was seen of others, or of another etcd: whether all are has to be asked.
    Doubted,
    /// It is not the etcd that was followed.
    PutBack(PutBack),
    /// Nobody watches any more.
    Unwanted,
}

/// Publishes every change after `since` to the feed, until the feed is gone or etcd is another than it was.
pub(super) async fn follow(rpc: Arc<Rpc>, root: String, feed: Weak<Feed>, since: Standing) {
    let mut followed = Followed { etcd: since.etcd, seen: since.revision, last: Vec::new() };
    let mut failures = 0;
    loop {
        let member = rpc.member_in_use();
        let before = followed.seen;
        let mut ended = match open(&rpc, &root, followed.from()).await {
            Ok(stream) => read(&rpc, stream, &root, &feed, &mut followed).await,
            Err(status) => {
                tracing::warn!(%status, "etcd cannot be watched, trying again");
                Ended::Broken
            }
        };
        if matches!(ended, Ended::Lost | Ended::Doubted) {
            match standing(&rpc, &root).await {
                Ok(now) => match (followed.check(now), matches!(ended, Ended::Lost)) {
                    (Err(how), _) => ended = Ended::PutBack(how),
                    (Ok(()), false) => ended = Ended::Broken,
                    (Ok(()), true) => {
                        tracing::info!(
                            revision = now.revision.0,
                            "changes in etcd were missed, reading everything anew"
                        );
                        let Some(feed) = feed.upgrade() else { return };
                        feed.reset(now.revision);
                        (followed.seen, followed.last) = (now.revision, Vec::new());
                    }
                },
                Err(error) => tracing::warn!(?error, "etcd cannot be read, trying again"),
            }
        }
        match ended {
            Ended::Unwanted => return,
            Ended::PutBack(how) => {
                if let Some(feed) = feed.upgrade() {
                    feed.put_back(how);
                }
                return;
            }
            Ended::Broken => rpc.turn_from(member),
            Ended::Lost | Ended::Doubted => {}
        }
        failures = if followed.seen > before { 0 } else { failures + 1 };
        sleep(PAUSES[failures.min(PAUSES.len() - 1)]).await;
    }
}

async fn open(rpc: &Rpc, root: &str, from: Revision) -> Result<Streaming<WatchResponse>, Status> {
    let create = WatchCreateRequest {
        key: Bytes::copy_from_slice(root.as_bytes()),
        range_end: end_of_prefix(root.as_bytes()),
        start_revision: to_wire(from.0),
    };
    rpc.open("/etcdserverpb.Watch/Watch", WatchRequest { ask: Some(WatchAsk::Create(create)) }).await
}

async fn read(
    rpc: &Rpc,
    mut stream: Streaming<WatchResponse>,
    root: &str,
    feed: &Weak<Feed>,
    followed: &mut Followed,
) -> Ended {
    let mut is_repeated = !followed.last.is_empty();
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
            if lost {
                return Ended::Lost;
            }
            // A token that etcd does not know is refused in the stream, with a word that differs from release to release.
            rpc.forget_token();
            return Ended::Broken;
        }
        // An etcd that was put back to an older state would be silent until it came to where it was once.
        let stands_at = answer.header.as_ref().filter(|_| answer.created).map(Standing::of);
        if stands_at.is_some_and(|now| followed.check(now).is_err()) {
            return Ended::Doubted;
        }
        let Some(feed) = feed.upgrade() else { return Ended::Unwanted };
        for (revision, changes) in by_revision(root, answer.events) {
            if std::mem::take(&mut is_repeated) {
                match followed.take_repeated(revision, &changes) {
                    Ok(()) => continue,
                    Err(ended) => return ended,
                }
            }
            feed.publish_changes(revision, changes.clone());
            (followed.seen, followed.last) = (revision, changes);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: Option<&'static str>) -> Change {
        Change { key: key.to_owned(), value: value.map(Bytes::from) }
    }

    fn followed() -> Followed {
        let last = vec![change("a", Some("1")), change("b", None)];
        Followed { etcd: 7, seen: Revision(40), last }
    }

    #[test]
    fn an_etcd_that_stands_below_what_was_seen_or_has_another_name_was_put_back() {
        let at = |etcd, revision| followed().check(Standing { etcd, revision: Revision(revision) });
        assert_eq!((at(7, 40), at(7, 41), at(0, 40)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(at(7, 39), Err(PutBack::Behind { seen: Revision(40), now: Revision(39) }));
        assert_eq!(at(8, 4000), Err(PutBack::Another { before: 7, now: 8 }));
    }

    #[test]
    fn what_was_seen_last_comes_again_and_anything_else_by_its_number_is_another_history() {
        let followed = followed();
        assert_eq!(followed.from(), Revision(40));
        assert!(followed.take_repeated(Revision(40), &followed.last).is_ok());
        // Its removal is compacted.
        assert!(followed.take_repeated(Revision(40), &followed.last[..1]).is_ok());
        let other = followed.take_repeated(Revision(40), &[change("a", Some("2"))]);
        assert!(matches!(other, Err(Ended::PutBack(PutBack::Rewritten { revision: Revision(40) }))));
        assert!(matches!(followed.take_repeated(Revision(41), &[change("a", Some("2"))]), Err(Ended::Lost)));
        let unseen = Followed { last: Vec::new(), ..followed };
        assert_eq!(unseen.from(), Revision(41));
    }
}
