//! Writing an object piece by piece: one PUT if it is small, parts if it is large.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::{
    MultipartId,
    multipart::{MultipartStore, PartId},
};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{
    local::{LocalDirectory, Staged},
    metrics::Operation,
    requests::{Backend, Bucket, BucketError, local},
};
use crate::layout::Key;

/// An object on its way into the bucket. It is there, whole, once [`ObjectWriter::finish`] returned; dropped before, it is
/// not there (parts of a large one are given up in the background).
///
/// Memory: `part_bytes` × (`parts_in_flight` + 1) at most, see [`super::BucketOptions`].
pub struct ObjectWriter {
    bucket: Bucket,
    key: Key,
    buffer: BytesMut,
    bytes: u64,
    state: State,
}

enum State {
    /// Fits one PUT so far.
    Small,
    Local(Arc<LocalDirectory>, Staged),
    Parts(Upload),
    /// Finished, or failed in the middle.
    Done,
}

struct Upload {
    store: Arc<dyn MultipartStore>,
    id: MultipartId,
    sent: usize,
    done: Vec<(usize, PartId)>,
    flying: JoinSet<Result<(usize, PartId), BucketError>>,
}

impl Bucket {
    /// Begins an object. The key must be one that only this writer can have drawn.
    pub fn writer(&self, key: Key) -> ObjectWriter {
        ObjectWriter { bucket: self.clone(), key, buffer: BytesMut::new(), bytes: 0, state: State::Small }
    }
}

impl ObjectWriter {
    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds `content` to the end; waits while too many parts are under way.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`], `Refused`: the object is lost, begin again.
    pub async fn write(&mut self, content: Bytes) -> Result<(), BucketError> {
        self.bytes += content.len() as u64;
        self.buffer.extend_from_slice(&content);
        let part = self.bucket.options().part_bytes.max(5 << 20);
        while self.buffer.len() >= part {
            let full = self.buffer.split_to(part).freeze();
            self.send(full).await?;
        }
        Ok(())
    }

    /// Makes the object visible and durable; returns its size.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`] (it may be there), `Refused`.
    pub async fn finish(mut self) -> Result<u64, BucketError> {
        let rest = self.buffer.split().freeze();
        if matches!(self.state, State::Small) {
            self.bucket.put(&self.key, rest).await?;
            return Ok(self.bytes);
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Local(directory, staged) => {
                let key = self.key.clone();
                let place = local(move || directory.place(staged, &key, false)).await;
                place.map_err(|source| BucketError::Unavailable { key: self.key.to_string(), source })?;
            }
            State::Parts(upload) => self.complete(upload).await?,
            State::Small | State::Done => {}
        }
        Ok(self.bytes)
    }

    async fn send(&mut self, part: Bytes) -> Result<(), BucketError> {
        if matches!(self.state, State::Small) {
            self.state = self.begin().await?;
        }
        // A failure below leaves `Done`: parts under way end with their set, and the rest is given up on drop.
        match std::mem::replace(&mut self.state, State::Done) {
            State::Local(directory, mut staged) => {
                let bytes = part.len() as u64;
                let staged = local(move || staged.write(&part).map(|()| staged)).await;
                let staged = staged.map_err(|source| BucketError::Unavailable { key: self.key.to_string(), source })?;
                self.bucket.metrics().moved(Operation::Put, bytes);
                self.state = State::Local(directory, staged);
            }
            State::Parts(mut upload) => {
                let room = self.bucket.options().parts_in_flight.max(1);
                let outcome = upload.wait_below(room).await;
                if outcome.is_ok() {
                    upload.launch(&self.bucket, &self.key, part);
                }
                // Kept in either case, so that dropping the writer gives the upload up.
                self.state = State::Parts(upload);
                outcome?;
            }
            State::Small | State::Done => {}
        }
        Ok(())
    }

    async fn begin(&self) -> Result<State, BucketError> {
        let path = self.bucket.path(&self.key);
        match self.bucket.backend() {
            Backend::Local(directory) => {
                let stage = Arc::clone(directory);
                let staged = local(move || stage.stage()).await;
                let staged = staged.map_err(|source| BucketError::Unavailable { key: self.key.to_string(), source })?;
                Ok(State::Local(Arc::clone(directory), staged))
            }
            Backend::Remote(store) => {
                let begun = self.bucket.repeat(Operation::Put, 0, || store.create_multipart(&path)).await;
                let id = begun.map_err(|failure| failure.of(&self.key))?;
                let store = Arc::clone(store);
                Ok(State::Parts(Upload { store, id, sent: 0, done: Vec::new(), flying: JoinSet::new() }))
            }
        }
    }

    async fn complete(&mut self, mut upload: Upload) -> Result<(), BucketError> {
        let landed = upload.wait_below(1).await;
        if let Err(error) = landed {
            self.state = State::Parts(upload);
            return Err(error);
        }
        upload.done.sort_unstable_by_key(|(nth, _)| *nth);
        let parts: Vec<PartId> = upload.done.drain(..).map(|(_, part)| part).collect();
        let path = self.bucket.path(&self.key);
        let attempt = || upload.store.complete_multipart(&path, &upload.id, parts.clone());
        match self.bucket.repeat(Operation::Put, 0, attempt).await {
            Ok(_) => Ok(()),
            Err(failure) => {
                // A first attempt that succeeded but was answered with an error makes the second one fail: "no such
                // upload". The object itself is the witness.
                match self.bucket.head(&self.key).await {
                    Ok(found) if found.bytes == self.bytes => Ok(()),
                    _ => {
                        self.state = State::Parts(upload);
                        Err(failure.of(&self.key))
                    }
                }
            }
        }
    }
}

impl Upload {
    fn launch(&mut self, bucket: &Bucket, key: &Key, part: Bytes) {
        let (nth, bucket, key) = (self.sent, bucket.clone(), key.clone());
        let (store, id) = (Arc::clone(&self.store), self.id.clone());
        self.sent += 1;
        let sending = async move {
            let path = bucket.path(&key);
            let bytes = part.len() as u64;
            let attempt = || store.put_part(&path, &id, nth, part.clone().into());
            let sent = bucket.repeat(Operation::Put, bytes, attempt).await.map_err(|failure| failure.of(&key))?;
            bucket.metrics().moved(Operation::Put, bytes);
            Ok((nth, sent))
        };
        self.flying.spawn(sending.in_current_span());
    }

    /// Waits until fewer than `room` parts are under way.
    async fn wait_below(&mut self, room: usize) -> Result<(), BucketError> {
        while self.flying.len() >= room {
            match self.flying.join_next().await {
                Some(Ok(part)) => self.done.push(part?),
                // A part's task is neither aborted nor allowed to panic; if it did, the object is incomplete.
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => break,
            }
        }
        Ok(())
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        let State::Parts(upload) = std::mem::replace(&mut self.state, State::Done) else { return };
        let path = self.bucket.path(&self.key);
        // Without a runtime the store's own rule for incomplete uploads has to do it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let Upload { store, id, mut flying, .. } = upload;
                flying.shutdown().await;
                if let Err(error) = store.abort_multipart(&path, &id).await {
                    tracing::debug!(%path, %error, "an unfinished upload was not given up");
                }
            });
        }
    }
}
