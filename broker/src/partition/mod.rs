//! The partitions that this broker has: those that it leads, and those that it follows.
//!
//! ```text
//!            produce                         fetch, list offsets
//!               │                                   │
//!         Partition::append                  Partition::read ─── below local start ──► RemoteReader (the archive)
//!               │                                   │
//!            LocalLog ── Appended ──► Waiters ──► who polls this partition, and nobody else
//! ```
//!
//! A [`Partition`] is its local log, what this broker is to it and in which epoch (`role.rs`), how far records are committed, a
//! handle into the archive, and whoever waits for more. With one replica a record is committed once it is in the log, or, where
//! `flush.messages` asks for it, once it was forced to disk; with several, once all that are in sync have it so.

mod archive;
mod cleaning;
mod delete_records;
mod flush;
mod follower;
mod leadership;
mod log_dir;
mod moves;
mod offsets;
mod peers;
mod placement;
mod read;
mod remote;
mod removal;
mod role;
mod storage;
mod table;
mod throttle;
mod traffic;
mod upkeep;
mod waiters;

pub use cleaning::{CompactedLog, CompactedLogs, LogCleaner};
pub use delete_records::{DeleteRecordsError, save_log_starts};
pub use flush::{CommitError, FlushError, flush_when_due};
pub use follower::{FollowError, FollowerPosition};
pub use leadership::{Appending, Partition, PartitionAppendError, StaleEpoch};
pub use log_dir::LogDirHealth;
pub use moves::{Move, MoveError, Moves};
pub use offsets::{OffsetAnswer, OffsetError, OffsetQuestion};
pub use peers::{NoPeers, Peers};
pub use read::{Isolation, PartitionRead, PartitionReadError, ReadBounds, ReadRequest};
pub use remote::{RemoteBatches, RemoteError, RemoteReader};
pub use role::Replica;
pub use storage::{Keeper, NoKeeper, Storage, StorageSettings, Unsettled};
pub use table::{LocalTopic, LookupError, Outage, Partitions};
pub use traffic::TrafficTotals;
pub use upkeep::{Upkeep, UpkeepMetrics, UpkeepSettings};
pub(crate) use waiters::Waiters;
pub use waiters::{Waiter, Watch};
