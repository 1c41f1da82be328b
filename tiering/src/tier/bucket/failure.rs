//! What became of one attempt, by what is to be done about it.

use super::BucketError;
use crate::layout::Key;

/// What became of one attempt.
pub(super) enum Failure {
    Missing,
    Exists,
    Refused(object_store::Error),
    Weather(object_store::Error),
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Failure {
        use object_store::Error;
        match error {
            Error::NotFound { .. } => Failure::Missing,
            Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => Failure::Exists,
            Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
            | Error::UnknownConfigurationKey { .. } => Failure::Refused(error),
            // The enum may grow; what we do not know we take for weather, and try again.
            _ => Failure::Weather(error),
        }
    }
}

impl Failure {
    pub(super) fn of(self, key: &Key) -> BucketError {
        match self {
            Failure::Missing => BucketError::NotFound(key.clone()),
            Failure::Exists => BucketError::AlreadyExists(key.clone()),
            failure => failure.at(key.as_str()),
        }
    }

    pub(super) fn at(self, key: &str) -> BucketError {
        let generic = |what| object_store::Error::Generic { store: "object store", source: String::into(what) };
        match self {
            Failure::Missing => BucketError::Unavailable { key: key.to_owned(), source: generic("missing".to_owned()) },
            Failure::Exists => BucketError::Unavailable { key: key.to_owned(), source: generic("conflict".to_owned()) },
            Failure::Refused(source) => BucketError::Refused { key: key.to_owned(), source },
            Failure::Weather(source) => BucketError::Unavailable { key: key.to_owned(), source },
        }
    }
}
