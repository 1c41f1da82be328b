//! Transaction markers: the control records that end a transaction (KIP-98).
//!
//! ```text
//! key:    version i16 (0) │ type i16 (0 abort, 1 commit)
//! value:  version i16 (0) │ coordinator epoch i32
//! ```

use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Timestamp};

use super::{
    builder::{BatchBuilder, RecordContent},
    record::{RecordError, RecordView},
};

/// How a transaction ended, by which epoch of its coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// Its records may be read.
    Commit {
        /// Fences markers of older coordinators.
        coordinator_epoch: i32,
    },
    /// Its records must be skipped by read_committed.
    Abort {
        /// Fences markers of older coordinators.
        coordinator_epoch: i32,
    },
}

impl ControlRecord {
    /// Reads the marker out of a control batch's record. `None` for control records of another type (KRaft's, or newer
    /// ones), which readers skip.
    ///
    /// # Errors
    /// [`RecordError`] if key or value is too short or of a version below 0.
    pub fn parse(record: &RecordView<'_>) -> Result<Option<ControlRecord>, RecordError> {
        let key = record.key.and_then(|key| key.first_chunk::<4>()).ok_or(RecordError::Truncated)?;
        let version = i16::from_be_bytes([key[0], key[1]]);
        let kind = i16::from_be_bytes([key[2], key[3]]);
        if version < 0 {
            return Err(RecordError::Length { field: "control key version" });
        }
        if !matches!(kind, 0 | 1) {
            return Ok(None);
        }
        let value = record.value.and_then(|value| value.first_chunk::<6>()).ok_or(RecordError::Truncated)?;
        if i16::from_be_bytes([value[0], value[1]]) < 0 {
            return Err(RecordError::Length { field: "marker version" });
        }
        let coordinator_epoch = i32::from_be_bytes([value[2], value[3], value[4], value[5]]);
        Ok(Some(match kind {
            0 => ControlRecord::Abort { coordinator_epoch },
            _ => ControlRecord::Commit { coordinator_epoch },
        }))
    }

    /// The control batch that ends the transaction of `producer`, to be appended at the next offset.
    pub fn batch(self, producer: ProducerId, epoch: ProducerEpoch, now: Timestamp) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Offset::ZERO).producer(producer, epoch, None).transactional().control();
        let (key, value) = self.encode();
        builder.push(RecordContent { timestamp: Some(now), key: Some(&key), value: Some(&value), headers: &[] });
        builder.build().expect("a marker is small and not compressed")
    }

    /// Key and value of the record.
    pub const fn encode(self) -> ([u8; 4], [u8; 6]) {
        let (kind, epoch) = match self {
            ControlRecord::Abort { coordinator_epoch } => (0, coordinator_epoch.to_be_bytes()),
            ControlRecord::Commit { coordinator_epoch } => (1, coordinator_epoch.to_be_bytes()),
        };
        ([0, 0, 0, kind], [0, 0, epoch[0], epoch[1], epoch[2], epoch[3]])
    }
}
