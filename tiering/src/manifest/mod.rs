//! The manifest: the versioned list of a partition's remote objects, and the only truth about them. Pure.
//!
//! ```text
//!  offsets   log start                                                            end
//!     │          ▼                                                                 ▼
//!     │   [ leaf: 4096 objects ][ leaf: 4096 objects ] object object object … object   ──► the leader appends here
//!     │        immutable, by reference                  inline, at most 1024
//! ```
//!
//! Coverage has neither gap nor overlap: each object answers for `base..end`, and the next one begins where it ends.
//! A change is made on the value ([`Manifest::with`], [`Manifest::replace`], [`Manifest::expire`], …) and then published
//! as the next version by create-if-absent. What lies in a leaf is changed by taking the leaf inline first
//! ([`ManifestError::LeafNeeded`] names it, [`Manifest::inline`] does it); [`Manifest::pack`] moves old entries out again.
//! Neither of the two changes what the manifest says. So a publish writes one small object however long the log is, and
//! finding an offset or a timestamp reads at most one leaf.

mod edit;
mod encode;
mod entry;
mod find;
mod leaf;
mod version;

#[cfg(test)]
pub(crate) mod tests;

pub use edit::{ManifestError, Writer};
pub use encode::{FormatError, MAX_LEAF_BYTES, MAX_MANIFEST_BYTES};
pub use entry::{ObjectId, ObjectKind, RemoteObject, Removed, RemovedEntry};
pub use find::Place;
pub use leaf::{Leaf, LeafRef, Limits};
pub use version::Manifest;
pub(crate) use version::Stretch;
