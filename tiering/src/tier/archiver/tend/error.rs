//! Why a look ends early, and what may help.

use std::{io, ops::Range, sync::Arc};

use varve_metadata::model::Offset;

use crate::tier::{
    archiver::share::ShareError, cluster::ClusterError, manifests::StoreError, partition::UpdateError,
    upload::UploadError,
};

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
pub(in crate::tier::archiver) enum TendError {
    /// A newer leader has announced itself: not ours any more.
    #[error("another broker leads the partition")]
    Deposed,
    /// The topic was deleted.
    #[error("the topic was deleted")]
    Deleted,
    /// The archive holds records that the local log never had or has no more: offsets were, or would be, given out twice. From
    /// there on the two hold different records, and neither is given up in favour of the other.
    #[error("the archive ends at {archived}, what the local log has of it at {end}")]
    LocalLogLost { archived: Offset, end: Offset },
    /// The archive went on with another log, and set aside what this one had given up in its favour. Going on behind that would hide it
    /// for ever.
    #[error("what lies between {} and {} was set aside in the archive, and is not on this disk", .0.start, .0.end)]
    SetAside(Range<Offset>),
    /// The manifest cannot be read or published now.
    #[error("manifest")]
    Manifest(#[from] UpdateError),
    /// The bucket is another cluster's, or does not say whose it is.
    #[error("nothing is uploaded")]
    Claim(#[source] Arc<ClusterError>),
    /// A segment cannot go up.
    #[error("upload")]
    Upload(#[from] UploadError),
    /// A segment cannot go up together with others.
    #[error("upload")]
    Share(#[source] ShareError),
    /// So much time has passed since the upload that the sweep may have taken the object for an orphan.
    #[error("an upload was not published in time and is begun anew")]
    Stale,
    /// The local log fails.
    #[error("local log")]
    Local(#[from] io::Error),
}

impl TendError {
    /// Whether a segment on the local disk is damaged.
    pub(in crate::tier::archiver) fn is_damage(&self) -> bool {
        matches!(
            self,
            TendError::Upload(UploadError::Damaged { .. })
                | TendError::Share(ShareError::Upload(UploadError::Damaged { .. }))
        )
    }

    /// Whether trying again in a moment may help.
    pub(in crate::tier::archiver) fn is_weather(&self) -> bool {
        match self {
            TendError::Deposed | TendError::Deleted | TendError::LocalLogLost { .. } | TendError::SetAside(_) => false,
            TendError::Claim(error) => error.is_weather(),
            error if error.is_damage() => false,
            TendError::Manifest(UpdateError::Store(StoreError::Format { .. })) => false,
            TendError::Manifest(_) | TendError::Upload(_) | TendError::Share(_) => true,
            TendError::Local(_) | TendError::Stale => true,
        }
    }
}
