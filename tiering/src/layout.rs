//! Names of everything in the bucket. Pure: builds keys and parses them back.
//!
//! ```text
//! cluster.json                                                  cluster id, format version
//! meta/<version>.jsonl.zst                                      snapshots of topics, configs, ACLs, users
//! manifests/<topic-id>/<partition>/<version>                    immutable, created if absent
//! index/<topic-id>/<partition>/<leaf-id>                        immutable leaves of a manifest
//! raw/<hash>/<topic-id>/<partition>/<base>-<epoch>-<uuid>       one sealed segment of one partition
//! raw/<hash>/shared/<uuid>                                      sealed segments of many partitions
//! tables/<topic>/data/partition=<p>/<base>-<last>-<uuid>.parquet
//! tables/<topic>/metadata/…                                     derived from the manifests
//! ```
//!
//! Versions and offsets have 20 digits and epochs 10, so that the store's order of names is the order of numbers. `<hash>` is the first
//! byte of the object's random id: it spreads uploads over the store's key ranges.

use std::{fmt, str::FromStr};

use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, TopicId, TopicName};

/// A key relative to the bucket's root: plain ASCII, `/` between parts, never starting with one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that another part of the cluster names (`meta/…`, `tables/<topic>/metadata/…`).
    ///
    /// `None` if a part is empty, `.` or `..`, or holds anything but ASCII letters, digits and `-_.=`.
    pub fn parse(text: &str) -> Option<Key> {
        let part_ok = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte))
        };
        text.split('/').all(part_ok).then(|| Key(text.to_owned()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Number of a manifest of one partition. 0 is "none published yet"; the first published one is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// No manifest has been published.
    pub const NONE: Version = Version(0);

    /// The version whose creation is the compare-and-set against this one.
    #[must_use]
    pub const fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Cluster id and format version of the whole bucket.
pub fn cluster() -> Key {
    Key("cluster.json".to_owned())
}

/// Above all manifests of all partitions.
pub const MANIFESTS: &str = "manifests";
/// Above all leaves of all manifests.
pub const LEAVES: &str = "index";
/// Above all raw objects.
pub const RAW: &str = "raw";
/// Above all Parquet objects and table metadata.
pub const TABLES: &str = "tables";
/// Above the cluster's metadata snapshots.
pub const META: &str = "meta";

/// Above all manifest versions of one partition; nothing else lies there.
pub fn manifests_of(partition: PartitionId) -> Key {
    Key(format!("{MANIFESTS}/{}/{}", partition.topic, partition.index))
}

/// One version of a partition's manifest.
pub fn manifest(partition: PartitionId, version: Version) -> Key {
    Key(format!("{MANIFESTS}/{}/{}/{version:020}", partition.topic, partition.index, version = version.0))
}

/// Above all leaves of one partition.
pub fn leaves_of(partition: PartitionId) -> Key {
    Key(format!("{LEAVES}/{}/{}", partition.topic, partition.index))
}

/// One leaf of a partition's manifests.
pub fn leaf(partition: PartitionId, id: Uuid) -> Key {
    Key(format!("{LEAVES}/{}/{}/{id}", partition.topic, partition.index))
}

/// The raw object of one sealed segment, uploaded by the leader of `epoch`.
pub fn raw(partition: PartitionId, base: Offset, epoch: LeaderEpoch, id: Uuid) -> Key {
    let (topic, index, hash) = (partition.topic, partition.index, id.as_bytes()[0]);
    Key(format!("{RAW}/{hash:02x}/{topic}/{index}/{:020}-{:010}-{id}", base.get(), epoch.0))
}

/// A raw object that holds segments of many partitions.
pub fn shared(id: Uuid) -> Key {
    Key(format!("{RAW}/{:02x}/shared/{id}", id.as_bytes()[0]))
}

/// A Parquet object with offsets from `base` to `last`, both inclusive.
pub fn table(topic: &TopicName, index: PartitionIndex, base: Offset, last: Offset, id: Uuid) -> Key {
    let name = topic.as_str();
    Key(format!("{TABLES}/{name}/data/partition={index}/{:020}-{:020}-{id}.parquet", base.get(), last.get()))
}

/// One copy of the cluster's state.
pub fn snapshot(version: Version) -> Key {
    Key(format!("{META}/{:020}.jsonl.zst", version.0))
}

/// Table metadata of one topic, under a name that the table format chooses.
///
/// `None` if `name` cannot be part of a key (see [`Key::parse`]).
pub fn table_metadata(topic: &TopicName, name: &str) -> Option<Key> {
    Key::parse(&format!("{TABLES}/{}/metadata/{name}", topic.as_str()))
}

/// What a key names, read back from a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// [`cluster`].
    Cluster,
    /// [`snapshot`].
    Snapshot(Version),
    /// Anything else below `meta/`.
    Meta,
    /// [`manifest`].
    Manifest(PartitionId, Version),
    /// [`leaf`].
    Leaf(PartitionId, Uuid),
    /// [`raw`].
    Raw {
        /// Whose records it holds.
        partition: PartitionId,
        /// First offset it answers for.
        base: Offset,
        /// Epoch of the leader that uploaded it.
        epoch: LeaderEpoch,
        /// Its identity.
        id: Uuid,
    },
    /// [`shared`].
    Shared(Uuid),
    /// [`table`].
    Table {
        /// Topic by name: the table outlives nothing but its own manifests, which say the topic's id.
        topic: TopicName,
        /// Partition number.
        index: PartitionIndex,
        /// First offset it answers for.
        base: Offset,
        /// Last offset it answers for.
        last: Offset,
        /// Its identity.
        id: Uuid,
    },
    /// [`table_metadata`].
    TableMetadata(TopicName),
}

/// What `key` names; `None` for anything that Varve does not write, which a sweep must leave alone.
pub fn parse(key: &str) -> Option<Named> {
    let parts: Vec<&str> = key.split('/').collect();
    let named = match parts.as_slice() {
        ["cluster.json"] => Named::Cluster,
        ["meta", name] => match name.strip_suffix(".jsonl.zst").and_then(|version| digits(version, 20)) {
            Some(version) => Named::Snapshot(Version(version)),
            None => Named::Meta,
        },
        ["meta", _, ..] => Named::Meta,
        ["manifests", topic, index, version] => {
            Named::Manifest(partition(topic, index)?, Version(digits(version, 20)?))
        }
        ["index", topic, index, id] => Named::Leaf(partition(topic, index)?, uuid(id)?),
        ["raw", _, "shared", id] => Named::Shared(uuid(id)?),
        ["raw", _, topic, index, name] => {
            let (base, rest) = name.split_at_checked(20)?;
            let (epoch, id) = rest.strip_prefix('-')?.split_at_checked(10)?;
            Named::Raw {
                partition: partition(topic, index)?,
                base: Offset::new(digits(base, 20)?)?,
                epoch: LeaderEpoch(u32::try_from(digits(epoch, 10)?).ok()?),
                id: uuid(id.strip_prefix('-')?)?,
            }
        }
        ["tables", topic, "metadata", _, ..] => Named::TableMetadata(TopicName::parse(topic).ok()?),
        ["tables", topic, "data", index, name] => {
            let (base, rest) = name.strip_suffix(".parquet")?.split_at_checked(20)?;
            let (last, id) = rest.strip_prefix('-')?.split_at_checked(20)?;
            Named::Table {
                topic: TopicName::parse(topic).ok()?,
                index: PartitionIndex(number(index.strip_prefix("partition=")?)?),
                base: Offset::new(digits(base, 20)?)?,
                last: Offset::new(digits(last, 20)?)?,
                id: uuid(id.strip_prefix('-')?)?,
            }
        }
        _ => return None,
    };
    Some(named)
}

fn partition(topic: &str, index: &str) -> Option<PartitionId> {
    Some(PartitionId { topic: TopicId::from_str(topic).ok()?, index: PartitionIndex(number(index)?) })
}

/// A number as we write it: no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    let value: u32 = text.parse().ok()?;
    (value.to_string() == text && value <= i32::MAX as u32).then_some(value)
}

fn digits(text: &str, count: usize) -> Option<u64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// An id as we write it: hyphenated lower case and nothing else that the parser would take.
fn uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::parse_str(text).ok()?;
    (id.to_string() == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_partition() -> impl Strategy<Value = PartitionId> {
        (2..u128::MAX, 0..=i32::MAX as u32).prop_map(|(topic, index)| PartitionId {
            topic: TopicId::from_wire(Uuid::from_u128(topic)).expect("not reserved"),
            index: PartitionIndex(index),
        })
    }

    proptest! {
        #[test]
        fn every_key_is_read_back_as_what_it_was_built_from(
            at in any_partition(), base in 0..i64::MAX as u64, epoch in any::<u32>(), id in any::<u128>(), version in any::<u64>()
        ) {
            let (base, epoch, id) = (Offset::new(base).unwrap(), LeaderEpoch(epoch), Uuid::from_u128(id));
            let topic = TopicName::parse("web.clicks_2-x").unwrap();
            let read = |key: Key| {
                assert_eq!(Key::parse(key.as_str()), Some(key.clone()));
                parse(key.as_str())
            };
            prop_assert_eq!(read(manifest(at, Version(version))), Some(Named::Manifest(at, Version(version))));
            prop_assert_eq!(read(snapshot(Version(version))), Some(Named::Snapshot(Version(version))));
            prop_assert_eq!(read(leaf(at, id)), Some(Named::Leaf(at, id)));
            prop_assert_eq!(read(raw(at, base, epoch, id)), Some(Named::Raw { partition: at, base, epoch, id }));
            prop_assert_eq!(read(shared(id)), Some(Named::Shared(id)));
            let last = base.plus(9);
            let named = Named::Table { topic: topic.clone(), index: at.index, base, last, id };
            prop_assert_eq!(read(table(&topic, at.index, base, last, id)), Some(named));
        }

        #[test]
        fn no_text_panics_the_parser(key in "[a-z0-9/=._-]{0,80}|\\PC{0,40}") {
            let _ = parse(&key);
            let _ = Key::parse(&key);
        }
    }

    #[test]
    fn names_that_varve_does_not_write_are_nobodys() {
        for key in
            ["", "raw", "manifests/x/0/1", "tables/web/data/partition=01/x.parquet", "other/file", "/cluster.json"]
        {
            assert_eq!(parse(key), None, "{key}");
        }
    }

    #[test]
    fn the_order_of_names_is_the_order_of_versions() {
        let at = PartitionId { topic: TopicId::random(), index: PartitionIndex(3) };
        assert!(manifest(at, Version(9)) < manifest(at, Version(10)));
        assert!(manifest(at, Version(99)) < manifest(at, Version(1000)));
    }
}
