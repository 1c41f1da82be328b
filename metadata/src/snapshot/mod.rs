//! The whole cluster state as text: what the bucket keeps of it, and how a new store is made from that.
//!
//! ```text
//! {"format":1,"cluster_id":"…","taken_ms":1764000000000,"revision":4711,"keys":2}
//! {"key":"cluster","value":"{\"v\":1,\"id\":\"…\"}"}
//! {"key":"topics/…","value":"{\"v\":1,…}"}
//! ```
//! One JSON object per line, keys in the store's order. Keys are kept as they are, also those that a later version of Varve
//! wrote; left out are those that mean only a running broker (`record::is_ephemeral`).

mod revive;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use revive::PRODUCER_IDS_SKIPPED;
pub use revive::{Archived, Fate, OwnTopic, ReviveError, Revived, Terms, revive};

use crate::{
    image::record::{self, ClusterRecord, Key},
    model::Timestamp,
    store::{Revision, Snapshot},
};

/// Version of the text.
const FORMAT: u32 = 1;

/// Cluster state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSnapshot {
    /// Whose state it is.
    pub cluster_id: String,
    /// When it was taken, by the clock of who took it.
    pub taken: Timestamp,
    /// The store's revision at that moment.
    pub revision: Revision,
    /// Keys and values in the store's order.
    pub entries: Vec<(String, Bytes)>,
}

/// Why a state cannot be written as a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store holds no cluster yet.
    #[error("the metadata store holds no cluster id")]
    NoCluster,
    /// A value is not text: no version of Varve writes such.
    #[error("the value of {0} is not text")]
    NotText(String),
}

/// Why a text is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// A later version of Varve wrote it: upgrade first.
    #[error("format {0} is newer than this version knows ({FORMAT})")]
    Newer(u32),
    /// Not the lines that the format says.
    #[error("line {line} is malformed")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The end is missing.
    #[error("{found} keys where {expected} should be")]
    Cut {
        /// How many the first line promises.
        expected: usize,
        /// How many there are.
        found: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    cluster_id: String,
    taken_ms: i64,
    revision: u64,
    keys: usize,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    key: std::borrow::Cow<'a, str>,
    value: std::borrow::Cow<'a, str>,
}

impl ClusterSnapshot {
    /// What `state` holds, as of `taken`.
    ///
    /// # Errors
    /// [`SnapshotError::NoCluster`].
    pub fn of(state: Snapshot, taken: Timestamp) -> Result<ClusterSnapshot, SnapshotError> {
        let cluster = Key::Cluster.text();
        let id = state.entries.iter().find(|(key, _)| *key == cluster);
        let id = id.and_then(|(_, found)| record::decode::<ClusterRecord>(&found.value).ok());
        let ClusterRecord { id: cluster_id } = id.ok_or(SnapshotError::NoCluster)?;
        let lasting = state.entries.into_iter().filter(|(key, _)| !record::is_ephemeral(key));
        let entries = lasting.map(|(key, found)| (key, found.value)).collect();
        Ok(ClusterSnapshot { cluster_id, taken, revision: state.revision, entries })
    }

    /// The snapshot as text.
    ///
    /// # Errors
    /// [`SnapshotError::NotText`].
    pub fn encode(&self) -> Result<Vec<u8>, SnapshotError> {
        let head = Head {
            format: FORMAT,
            cluster_id: self.cluster_id.clone(),
            taken_ms: i64::try_from(self.taken.millis()).unwrap_or(i64::MAX),
            revision: self.revision.0,
            keys: self.entries.len(),
        };
        let mut text = Vec::new();
        push_line(&mut text, &head);
        for (key, value) in &self.entries {
            let value = std::str::from_utf8(value).map_err(|_| SnapshotError::NotText(key.clone()))?;
            push_line(&mut text, &Entry { key: key.into(), value: value.into() });
        }
        Ok(text)
    }

    /// Reads a text back.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(text: &[u8]) -> Result<ClusterSnapshot, ParseError> {
        let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).zip(1..);
        let malformed = |line| move |source| ParseError::Malformed { line, source };
        let (first, _) = lines.next().unwrap_or_default();
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(first).map_err(malformed(1))?;
        if format != FORMAT {
            return Err(ParseError::Newer(format));
        }
        let head: Head = serde_json::from_slice(first).map_err(malformed(1))?;
        let entries = lines.map(|(line, number)| {
            let entry: Entry<'_> = serde_json::from_slice(line).map_err(malformed(number))?;
            Ok((entry.key.into_owned(), Bytes::from(entry.value.into_owned())))
        });
        let entries = entries.collect::<Result<Vec<_>, ParseError>>()?;
        if entries.len() != head.keys {
            return Err(ParseError::Cut { expected: head.keys, found: entries.len() });
        }
        Ok(ClusterSnapshot {
            cluster_id: head.cluster_id,
            taken: Timestamp::from_wire(head.taken_ms).unwrap_or_default(),
            revision: Revision(head.revision),
            entries,
        })
    }
}

fn push_line(text: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *text, line).expect("plain structs always encode, and a vector takes them");
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Versioned;

    fn state(entries: &[(&str, &str)]) -> Snapshot {
        let versioned =
            |value: &str| Versioned { value: Bytes::copy_from_slice(value.as_bytes()), modified: Revision(3) };
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), versioned(value))).collect();
        Snapshot { revision: Revision(9), entries }
    }

    fn taken() -> Timestamp {
        Timestamp::from_wire(1_764_000_000_000).unwrap()
    }

    #[test]
    fn a_snapshot_reads_back_without_what_means_a_running_broker() {
        let state = state(&[("brokers/1", "{}"), ("cluster", r#"{"v":1,"id":"c"}"#), ("later/kind", "\"ü\n\"")]);
        let snapshot = ClusterSnapshot::of(state, taken()).unwrap();
        assert_eq!(snapshot.entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["cluster", "later/kind"]);
        assert_eq!(ClusterSnapshot::parse(&snapshot.encode().unwrap()).unwrap(), snapshot);
    }

    #[test]
    fn a_state_without_a_cluster_is_no_snapshot() {
        assert!(matches!(ClusterSnapshot::of(state(&[("topics/x", "{}")]), taken()), Err(SnapshotError::NoCluster)));
    }

    #[test]
    fn a_snapshot_of_a_later_version_is_told_from_a_damaged_one() {
        assert!(matches!(ClusterSnapshot::parse(b"{\"format\":2,\"x\":1}\n"), Err(ParseError::Newer(2))));
        assert!(matches!(ClusterSnapshot::parse(b""), Err(ParseError::Malformed { line: 1, .. })));
    }

    proptest! {
        #[test]
        fn a_snapshot_cut_anywhere_is_refused(cut in any::<prop::sample::Index>()) {
            let state = state(&[("cluster", r#"{"v":1,"id":"c"}"#), ("x", "{}"), ("y", "{}")]);
            let text = ClusterSnapshot::of(state, taken()).unwrap().encode().unwrap();
            // Without its last newline it is still whole.
            let cut = cut.index(text.len() - 1);
            prop_assert!(ClusterSnapshot::parse(&text[..cut]).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = ClusterSnapshot::parse(&bytes);
        }
    }
}
