//! Small segments of many partitions in one object.
//!
//! ```text
//!  look at a partition ──part──►┌────────┐ oldest waited long enough, ┌────────┐ one PUT ┌────────┐
//!                               │ waiting│ or there is enough of them │ upload │────────►│ bucket │
//!  publish in its manifest ◄────└────────┘◄─────────entry────────────-└────────┘         └────────┘
//! ```
//!
//! A look that waits here holds no worker. What was uploaded and is not published within [`Sharing::patience`] is begun
//! anew: an object that no manifest names is the sweep's after the grace period.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, trace_span};
use varve_metadata::model::PartitionId;

use super::metrics::ArchiverMetrics;
use crate::{
    manifest::RemoteObject,
    tier::{
        bucket::{Bucket, BucketError},
        pace::ByteRate,
        upload::{Part, UploadError, upload, upload_shared},
    },
};

/// How segments are shared.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// Segments below this size go into shared objects; 0: none do.
    pub below: u64,
    /// Bytes in one shared object, about.
    pub object_bytes: u64,
    /// Parts in one shared object at most.
    pub parts: usize,
    /// Longest wait for others.
    pub linger: Duration,
    /// What is uploaded must be published within this time of the upload's begin.
    pub patience: Duration,
}

impl Default for Sharing {
    fn default() -> Sharing {
        Sharing {
            // A quarter of the smallest segment.bytes that Kafka takes: such a segment was sealed by time.
            below: 256 << 10,
            object_bytes: 8 << 20,
            parts: 1024,
            linger: Duration::from_secs(30),
            patience: Duration::from_secs(30 * 60),
        }
    }
}

/// Why a part is not in the bucket.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShareError {
    /// It cannot be read.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The bucket did not take the object that it was part of.
    #[error("shared object")]
    Bucket(#[source] Arc<BucketError>),
    /// The archiver stops.
    #[error("the archiver stops")]
    Stopped,
}

/// An object in the bucket, and when its upload began.
#[derive(Clone, Debug)]
pub(super) struct Uploaded {
    pub(super) object: RemoteObject,
    /// By both clocks: one stands still while the machine sleeps, and the other can be set.
    pub(super) begun: (Instant, SystemTime),
}

impl Uploaded {
    /// Whether the sweep may have taken it for an orphan, `patience` after its upload began. An object of its own is known by
    /// its name as one that may yet be published. A shared one is not.
    pub(super) fn is_stale(&self, patience: Duration) -> bool {
        let (at, wall) = self.begun;
        let is_young = at.elapsed() < patience && wall.elapsed().is_ok_and(|elapsed| elapsed < patience);
        self.object.shared_at.is_some() && !is_young
    }
}

/// Parts that wait for others.
#[derive(Debug)]
pub(super) struct Pool {
    bucket: Mutex<Option<Bucket>>,
    waiting: Mutex<Vec<Waiting>>,
    bell: Notify,
}

#[derive(Debug)]
struct Waiting {
    partition: PartitionId,
    part: Part,
    until: Instant,
    answer: oneshot::Sender<Result<Uploaded, ShareError>>,
}

impl Pool {
    pub(super) fn new() -> Pool {
        Pool { bucket: Mutex::default(), waiting: Mutex::default(), bell: Notify::new() }
    }

    /// Uploads `part` together with others that come within `linger`.
    pub(super) async fn upload(
        &self,
        bucket: &Bucket,
        partition: PartitionId,
        part: Part,
        linger: Duration,
    ) -> Result<Uploaded, ShareError> {
        let (answer, answered) = oneshot::channel();
        self.bucket.lock().get_or_insert_with(|| bucket.clone());
        self.waiting.lock().push(Waiting { partition, part, until: Instant::now() + linger, answer });
        self.bell.notify_one();
        answered.await.unwrap_or(Err(ShareError::Stopped))
    }

    /// Uploads what waits, until `stop`.
    pub(super) async fn run(
        &self,
        sharing: Sharing,
        rate: Arc<ByteRate>,
        metrics: ArchiverMetrics,
        stop: CancellationToken,
    ) {
        let work = async {
            loop {
                let batch = self.next(sharing).await;
                let Some(bucket) = self.bucket.lock().clone() else { continue };
                let span = trace_span!(target: "varve_trace::root", "upload segments", segments = batch.len());
                upload_batch(&bucket, batch, &rate, &metrics).instrument(span).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
        // Who still waits is told by the loss of its channel.
        self.waiting.lock().clear();
    }

    async fn next(&self, sharing: Sharing) -> Vec<Waiting> {
        loop {
            let rung = self.bell.notified();
            let due = {
                let mut waiting = self.waiting.lock();
                // Looks that were given up wait no longer.
                waiting.retain(|one| !one.answer.is_closed());
                let full = take_full(&waiting, sharing);
                let due = waiting.iter().map(|one| one.until).min();
                if let Some(count) = full {
                    return waiting.drain(..count).collect();
                }
                if due.is_some_and(|due| due <= Instant::now()) {
                    return waiting.drain(..).collect();
                }
                due
            };
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = rung => {}
                () = sleep => {}
            }
        }
    }
}

/// How many of the first make one object that is full, if they do.
fn take_full(waiting: &[Waiting], sharing: Sharing) -> Option<usize> {
    let mut bytes = 0u64;
    let full = waiting.iter().position(|one| {
        bytes = bytes.saturating_add(one.part.segment.bytes);
        bytes >= sharing.object_bytes
    });
    let count = full.map_or(sharing.parts, |place| place + 1).min(sharing.parts).max(1);
    (waiting.len() >= count).then_some(count)
}

async fn upload_batch(bucket: &Bucket, batch: Vec<Waiting>, rate: &ByteRate, metrics: &ArchiverMetrics) {
    let begun = (Instant::now(), SystemTime::now());
    let (mut parts, mut answers) = (Vec::new(), Vec::new());
    for one in batch {
        parts.push((one.partition, one.part));
        answers.push(one.answer);
    }
    // Nobody to share with: an object of its own, which is told by its name whose it is.
    let outcome = match parts.len() {
        1 => {
            let (partition, part) = parts.remove(0);
            Ok(vec![upload(bucket, partition, part, rate).await])
        }
        _ => upload_shared(bucket, parts, rate).await.inspect(|_| metrics.shared_objects.inc()),
    };
    match outcome {
        Ok(objects) => {
            for (answer, object) in answers.into_iter().zip(objects) {
                // Who no longer waits leaves an orphan.
                drop(answer.send(object.map(|object| Uploaded { object, begun }).map_err(ShareError::from)));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for answer in answers {
                drop(answer.send(Err(ShareError::Bucket(Arc::clone(&error)))));
            }
        }
    }
}
