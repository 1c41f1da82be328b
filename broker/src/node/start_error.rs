//! Why a node does not start, as it says it last of all.

use std::io;

use varve_log::local::LogDirError;
use varve_metadata::{
    cluster::MetadataError,
    model::{BrokerId, Unserved},
    store::{ConnectError, OpenError, PutBack},
};
use varve_tiering::tier::cluster::ClusterError;

use crate::{archive::ArchiveError, server::ListenError};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metadata store cannot be opened.
    #[error("the metadata store in {dir} cannot be opened")]
    Store {
        /// Its directory.
        dir: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The cluster's state cannot be read or changed.
    #[error("the cluster's state cannot be read")]
    Metadata(#[from] MetadataError),
    /// etcd cannot be used.
    #[error("etcd cannot be used (varve.metadata.url)")]
    Etcd(#[from] ConnectError),
    /// A file that a setting names, or that the node keeps, cannot be read or written.
    #[error("the file {file} cannot be used")]
    File {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two processes cannot be one broker.
    #[error("another process has registered as node {node}: each needs a node.id of its own")]
    Replaced {
        /// Its id.
        node: BrokerId,
    },
    /// Others have agreed on a feature meanwhile that this version does not serve.
    #[error(transparent)]
    Outdated(#[from] Unserved),
    /// What the node knows of the cluster is not what the store holds.
    #[error(
        "the metadata store was put back to an older state, or is another one: {0}. What it lacks was not deleted here, neither \
         logs nor archive. Restored, it is taken up by the next start, which sets aside the logs that it does not know; empty, it is \
         to be restored first, with all brokers stopped (docs/operations/lose-etcd.md)"
    )]
    PutBack(#[from] PutBack),
    /// The store lost the cluster whose logs are here: a new one would only be in the way of what is to be restored.
    #[error(
        "the metadata store is empty, and the logs in {dir} are of cluster {cluster}. Stop all brokers and restore the store \
         (docs/operations/lose-etcd.md); for a new cluster, give this node empty directories"
    )]
    EmptyStore {
        /// The log directory that says so.
        dir: String,
        /// The cluster that it is of.
        cluster: String,
    },
    /// The store lost the cluster whose archive is in the bucket: likewise.
    #[error(
        "the metadata store is empty, and {bucket} is the archive of cluster {cluster}. Stop all brokers and restore the store from a \
         backup, or from the archive with varve restore (docs/operations/lose-etcd.md); for a new cluster, name an empty bucket or \
         prefix (varve.object.store.url)"
    )]
    LostStore {
        /// Where the archive is.
        bucket: String,
        /// The cluster that it is of.
        cluster: String,
    },
    /// A new cluster would be made, and the bucket has not said that there was none before.
    #[error(
        "the metadata store is empty, and {bucket} has not said whether it is the archive of a cluster: before it has, none is made \
         (varve.object.store.url)"
    )]
    SilentBucket {
        /// Where the archive is to be.
        bucket: String,
        /// What it said instead; `None`: nothing.
        #[source]
        source: Option<Box<ClusterError>>,
    },
    /// A new cluster would be made, and there is no bucket that could say whether there was one before.
    #[error(
        "the metadata store is empty, and {bucket} is not there to say whether it is the archive of a cluster: before it is, none is \
         made. Make it, mount it, or name another one (varve.object.store.url)"
    )]
    NoBucket {
        /// Where the archive is to be.
        bucket: String,
    },
    /// A log directory is somebody else's.
    #[error(transparent)]
    LogDir(#[from] LogDirError),
    /// Two nodes cannot share what each keeps for itself.
    #[error("the directory {dir} is in use by another process: each node needs a varve.data.dir of its own")]
    DataDir {
        /// The directory.
        dir: String,
    },
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A listener does not open.
    #[error(transparent)]
    Listener(#[from] ListenError),
    /// The address of the HTTP listener cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory cannot be made.
    #[error("cannot make the directory {dir}")]
    Directory {
        /// The directory.
        dir: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}
