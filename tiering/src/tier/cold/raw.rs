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
        Ok(meta) if meta.footer.base == object.base && meta.footer.end == object.end => {
            let whole = (tail.len() as u64 == part_bytes).then(|| tail.clone());
            Ok(Attempt::Opened(Box::new(Opened::Raw(RawObject::new(meta, range.start, unit_bytes, whole)))))
        }
        Ok(_) => Err(ColdError::corrupt(&part.key, Damage("it holds other offsets than the manifest says"))),
        Err(RawError::TailNeeded(bytes)) => Ok(Attempt::Needs(bytes)),
        Err(error) => Err(ColdError::corrupt(&part.key, error)),
    }
}
