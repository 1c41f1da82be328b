//! Opening raw objects.

use bytes::Bytes;

use super::{
    error::{ColdError, Damage},
    object::{Opened, RawObject},
    reader::Part,
};
use crate::raw::{RawError, RawMeta};

/// What came of trying to open a raw object by its tail.
pub(super) enum Attempt {
    Opened(Box<Opened>),
    /// The last this many bytes are needed.
    Needs(u64),
}

/// Opens the object whose last bytes `tail` are.
pub(super) fn open(part: &Part, tail: &Bytes, unit_bytes: u64) -> Result<Attempt, ColdError> {
    let (object, range) = (&part.object, part.object.range());
    let part_bytes = range.end - range.start;
    match RawMeta::parse(tail, part_bytes) {
        Ok(mut meta) if meta.footer.base == object.base && meta.footer.end == object.end => {
            // No reader asks for it, and it would hold all of the tail in memory.
            meta.producer_snapshot = Bytes::new();
            let whole = (tail.len() as u64 == part_bytes).then(|| tail.clone());
            Ok(Attempt::Opened(Box::new(Opened::Raw(RawObject::new(meta, range.start, unit_bytes, whole)))))
        }
        Ok(_) => Err(ColdError::corrupt(&part.key, Damage("it holds other offsets than the manifest says"))),
        Err(RawError::TailNeeded(bytes)) => Ok(Attempt::Needs(bytes)),
        Err(error) => Err(ColdError::corrupt(&part.key, error)),
    }
}

#[cfg(test)]
mod tests {
    use varve_metadata::model::LeaderEpoch;

    use super::*;
    use crate::{
        layout,
        manifest::{
            ObjectId, RemoteObject,
            tests::{at, partition},
        },
        raw::{Attachments, RawBuilder, tests::log_of},
        tier::bucket::Bucket,
    };

    #[test]
    fn an_opened_object_does_not_hold_the_tail_that_it_was_opened_by() {
        let (mut builder, log) = (RawBuilder::new(at(0), at(60)), log_of(0, 60, 3));
        builder.push(&log).unwrap();
        let attachments = Attachments { producer_snapshot: Bytes::from_static(&[7; 5000]), ..Attachments::default() };
        let (behind, summary) = builder.finish(attachments).unwrap();
        let (partition, id) = (partition(), ObjectId::random());
        let object = RemoteObject::raw(id, LeaderEpoch(0), summary);
        let key = layout::raw(partition, at(0), LeaderEpoch(0), id.0);
        let part = Part { object, key, bucket: Bucket::memory(), partition };
        let tail = Bytes::from([&log[1..], &behind].concat());

        let Ok(Attempt::Opened(opened)) = open(&part, &tail, 1 << 20) else { panic!("it is whole") };

        assert!(tail.is_unique(), "the cache weighs what it knows of, and does not know of this");
        assert!(opened.unit_at(at(0)).is_some());
    }
}
