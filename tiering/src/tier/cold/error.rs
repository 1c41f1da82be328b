//! Why the archive did not answer, by what the asker can do.

use std::{error::Error, sync::Arc};

use varve_metadata::model::Offset;

use super::budget::TooMany;
use crate::{
    layout::Key,
    tier::{bucket::BucketError, manifests::StoreError},
};

/// Why a cold read failed. Cheap to clone: all who waited for one fetch get the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ColdError {
    /// The archive does not hold that offset (any more).
    #[error("the archive does not hold offset {0}")]
    OutOfRange(Offset),
    /// The bucket cannot be reached or refuses: ask again later.
    #[error("the archive cannot be read now")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// So many reads wait for their turn that no other may: ask again later.
    #[error("too many reads of the archive wait for their turn")]
    Busy,
    /// An object that was listed is gone: the manifest at hand is too old. After a reload it is found elsewhere, or else it
    /// is lost.
    #[error("{0} is listed, and not in the bucket")]
    Vanished(Key),
    /// An object is not what its manifest says.
    #[error("{key} is damaged")]
    Corrupt {
        /// The object.
        key: Key,
        /// What does not hold.
        source: Arc<dyn Error + Send + Sync>,
    },
}

/// What does not hold of an object.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damage(pub(super) &'static str);

impl ColdError {
    pub(super) fn corrupt(key: &Key, source: impl Error + Send + Sync + 'static) -> ColdError {
        ColdError::Corrupt { key: key.clone(), source: Arc::new(source) }
    }
}

impl From<TooMany> for ColdError {
    fn from(TooMany: TooMany) -> ColdError {
        ColdError::Busy
    }
}

impl From<BucketError> for ColdError {
    fn from(error: BucketError) -> ColdError {
        match error {
            BucketError::NotFound(key) => ColdError::Vanished(key),
            BucketError::Size { ref key, .. } => ColdError::Corrupt { key: key.clone(), source: Arc::new(error) },
            BucketError::NoBucket
            | BucketError::AlreadyExists(_)
            | BucketError::Unknown { .. }
            | BucketError::Unavailable { .. }
            | BucketError::Refused { .. } => ColdError::Unavailable(Arc::new(error)),
        }
    }
}

impl From<StoreError> for ColdError {
    fn from(error: StoreError) -> ColdError {
        match error {
            StoreError::Bucket(error) | StoreError::Unknown(error) => error.into(),
            StoreError::Format { key, source } => ColdError::Corrupt { key, source: Arc::new(source) },
            StoreError::Conflict | StoreError::Leaf(_) => ColdError::Unavailable(Arc::new(error)),
        }
    }
}
