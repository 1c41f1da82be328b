//! The partitions that this broker leads.
//!
//! ```text
//!            produce                         fetch, list offsets
//!               │                                   │
//!         Partition::append                  Partition::read ─── below local start ──► RemoteReader (the archive)
//!               │                                   │
//!            LocalLog ── Appended ──► Waiters ──► who polls this partition, and nobody else
//! ```
//!
//! A [`Partition`] is its local log, the epoch in which this broker leads it, how far records are committed, a handle
//! into the archive, and whoever waits for more. On one node a record is committed once it is in the log, or, where
//! `flush.messages` asks for it, once it was forced to disk.

mod archive;
mod cleaning;
mod delete_records;
mod flush;
mod leadership;
mod log_dir;
mod moves;
mod offsets;
mod placement;
mod read;
mod remote;
mod removal;
mod storage;
mod table;
mod throttle;
mod upkeep;
mod waiters;

pub use cleaning::{CompactedLog, CompactedLogs, LogCleaner};
pub use delete_records::{DeleteRecordsError, save_log_starts};
pub use flush::{FlushError, flush_when_due};
pub use leadership::{Partition, PartitionAppendError, StaleEpoch};
pub use log_dir::LogDirHealth;
pub use moves::{Move, MoveError, Moves};
pub use offsets::{OffsetAnswer, OffsetError, OffsetQuestion};
pub use read::{Isolation, PartitionRead, PartitionReadError, ReadBounds, ReadRequest};
pub use remote::{RemoteBatches, RemoteError, RemoteReader};
pub use storage::{Keeper, NoKeeper, Storage, StorageSettings, Unsettled};
pub use table::{LocalTopic, LookupError, Partitions};
pub use upkeep::{Upkeep, UpkeepMetrics, UpkeepSettings};
pub use waiters::{Waiter, Watch};
