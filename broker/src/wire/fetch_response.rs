//! A fetch response, written around the records instead of through them.
//!
//! ```text
//! head:    length header throttle error session │ topic index error hw lso … records length │ tags, topic index … │ tags
//! splices:                                                                                  ▲ file 1            ▲ memory 2
//! ```
//! The head holds everything but the records; a splice says at which byte of the head records belong, and where they
//! are. `kafka-protocol` would want the records in memory, so this one response has its own encoder; a test decodes
//! what it writes in every version.

use std::{io, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;
use varve_log::local::{AbortedTxn, LogSlice};

use super::{frame, key::ApiKey};

/// Up to here records are copied behind the head: cheaper than a system call of their own.
const INLINE_BYTES: u32 = 16 * 1024;
const FLEXIBLE_SINCE: i16 = 12;

/// A response frame, ready to be sent.
#[derive(Debug)]
pub(crate) struct FetchFrame {
    pub(crate) head: BytesMut,
    /// In the order of their places.
    pub(crate) splices: Vec<Splice>,
}

/// Records that are sent once the head was sent up to `at`.
#[derive(Debug)]
pub(crate) struct Splice {
    pub(crate) at: usize,
    pub(crate) source: Source,
}

impl FetchFrame {
    /// Size of the whole frame, its length prefix included.
    pub(crate) fn bytes(&self) -> u64 {
        let spliced = self.splices.iter().map(|splice| match &splice.source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File(slice) => u64::from(slice.len),
        });
        self.head.len() as u64 + spliced.sum::<u64>()
    }
}

/// Where records are.
#[derive(Debug)]
pub(crate) enum Source {
    File(LogSlice),
    Memory(Bytes),
}

/// Everything a response says.
#[derive(Debug, Default)]
pub(crate) struct FetchAnswer {
    pub(crate) error: i16,
    /// How long the client is to wait.
    pub(crate) throttle: Duration,
    pub(crate) session_id: i32,
    pub(crate) topics: Vec<TopicAnswer>,
    pub(crate) leaders: Vec<NodeEndpoint>,
}

/// How to reach a leader (KIP-951).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEndpoint {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
}

/// The partitions of one topic.
#[derive(Debug)]
pub(crate) struct TopicAnswer {
    pub(crate) topic: TopicKey,
    pub(crate) partitions: Vec<PartitionAnswer>,
}

/// How the request named the topic, and how the answer does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Named(Arc<str>),
    Id(Uuid),
}

/// One partition.
#[derive(Debug)]
pub(crate) struct PartitionAnswer {
    pub(crate) index: i32,
    pub(crate) error: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// `None` for readers that see everything.
    pub(crate) aborted: Option<Vec<AbortedTxn>>,
    pub(crate) records: Records,
    pub(crate) diverging: Option<(i32, i64)>,
    pub(crate) leader: Option<(i32, i32)>,
    /// The broker that the consumer is to read from instead (KIP-392).
    pub(crate) preferred: Option<i32>,
}

/// A partition's records.
#[derive(Debug, Default)]
pub(crate) enum Records {
    #[default]
    None,
    Local(LogSlice),
    Remote(Vec<Bytes>),
}

impl Records {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Records::None => 0,
            Records::Local(slice) => slice.len as usize,
            Records::Remote(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }
}

impl PartitionAnswer {
    /// An answer that tells an error and no offsets.
    pub(crate) fn failed(index: i32, error: i16) -> PartitionAnswer {
        PartitionAnswer {
            index,
            error,
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            aborted: None,
            records: Records::None,
            diverging: None,
            leader: None,
            preferred: None,
        }
    }
}

/// Writes the response.
///
/// # Errors
/// If records that are copied cannot be read: the connection is closed, the client asks again.
pub(crate) fn encode(version: i16, correlation_id: i32, answer: FetchAnswer) -> io::Result<FetchFrame> {
    let mut writer = Writer {
        version,
        flexible: version >= FLEXIBLE_SINCE,
        frame: FetchFrame { head: BytesMut::with_capacity(512), splices: Vec::new() },
        spliced: 0,
    };
    let start = frame::begin_response(&mut writer.frame.head, ApiKey::Fetch, version, correlation_id);
    writer.answer(answer)?;
    frame::finish_response(&mut writer.frame.head, start, writer.spliced);
    Ok(writer.frame)
}

/// Writes records, or where they are. Returns how many bytes are elsewhere.
///
/// # Errors
/// If records that are copied cannot be read.
pub(super) fn put_records(head: &mut BytesMut, splices: &mut Vec<Splice>, records: Records) -> io::Result<usize> {
    let mut spliced = 0;
    let at = head.len();
    match records {
        Records::None => {}
        Records::Local(slice) if slice.len <= INLINE_BYTES => {
            head.resize(at + slice.len as usize, 0);
            slice.read_into(&mut head[at..])?;
        }
        Records::Local(slice) => {
            spliced += slice.len as usize;
            splices.push(Splice { at, source: Source::File(slice) });
        }
        Records::Remote(pieces) => {
            for piece in pieces {
                spliced += piece.len();
                splices.push(Splice { at, source: Source::Memory(piece) });
            }
        }
    }
    Ok(spliced)
}

struct Writer {
    version: i16,
    flexible: bool,
    frame: FetchFrame,
    spliced: usize,
}

impl Writer {
    fn answer(&mut self, answer: FetchAnswer) -> io::Result<()> {
        self.head().put_i32(answer.throttle.as_millis() as i32);
        if self.version >= 7 {
            self.head().put_i16(answer.error);
            self.head().put_i32(answer.session_id);
        }
        self.count(answer.topics.len());
        for topic in answer.topics {
            self.topic(topic)?;
        }
        if self.flexible {
            self.endpoints(&answer.leaders);
        }
        Ok(())
    }

    fn topic(&mut self, topic: TopicAnswer) -> io::Result<()> {
        match &topic.topic {
            TopicKey::Id(id) => self.head().put_slice(id.as_bytes()),
            TopicKey::Named(name) => self.text(name),
        }
        self.count(topic.partitions.len());
        for partition in topic.partitions {
            self.partition(partition)?;
        }
        if self.flexible {
            self.varint(0);
        }
        Ok(())
    }

    fn partition(&mut self, partition: PartitionAnswer) -> io::Result<()> {
        let head = self.head();
        head.put_i32(partition.index);
        head.put_i16(partition.error);
        head.put_i64(partition.high_watermark);
        head.put_i64(partition.last_stable);
        if self.version >= 5 {
            self.head().put_i64(partition.log_start);
        }
        self.aborted(partition.aborted.as_deref());
        if self.version >= 11 {
            // -1: this broker is the one to read from.
            self.head().put_i32(partition.preferred.unwrap_or(-1));
        }
        self.records(partition.records)?;
        if self.flexible {
            self.partition_tags(partition.diverging, partition.leader);
        }
        Ok(())
    }

    fn aborted(&mut self, aborted: Option<&[AbortedTxn]>) {
        let Some(aborted) = aborted else {
            if self.flexible {
                self.varint(0)
            } else {
                self.head().put_i32(-1)
            }
            return;
        };
        self.count(aborted.len());
        for transaction in aborted {
            self.head().put_i64(transaction.producer.to_wire());
            self.head().put_i64(transaction.first.to_wire());
            if self.flexible {
                self.varint(0);
            }
        }
    }

    fn records(&mut self, records: Records) -> io::Result<()> {
        self.count(records.len());
        self.spliced += put_records(&mut self.frame.head, &mut self.frame.splices, records)?;
        Ok(())
    }

    fn partition_tags(&mut self, diverging: Option<(i32, i64)>, leader: Option<(i32, i32)>) {
        self.varint(u32::from(diverging.is_some()) + u32::from(leader.is_some()));
        if let Some((epoch, end)) = diverging {
            self.head().put_slice(&[0, 13]);
            self.head().put_i32(epoch);
            self.head().put_i64(end);
            self.varint(0);
        }
        if let Some((id, epoch)) = leader {
            self.head().put_slice(&[1, 9]);
            self.head().put_i32(id);
            self.head().put_i32(epoch);
            self.varint(0);
        }
    }

    fn endpoints(&mut self, nodes: &[NodeEndpoint]) {
        if self.version < 16 || nodes.is_empty() {
            return self.varint(0);
        }
        let outer = std::mem::take(&mut self.frame.head);
        self.count(nodes.len());
        for node in nodes {
            self.head().put_i32(node.id);
            self.text(&node.host);
            self.head().put_i32(i32::from(node.port));
            match &node.rack {
                Some(rack) => self.text(rack),
                None => self.varint(0),
            }
            self.varint(0);
        }
        let field = std::mem::replace(&mut self.frame.head, outer);
        self.head().put_slice(&[1, 0]);
        self.varint(field.len() as u32);
        self.head().put_slice(&field);
    }

    fn head(&mut self) -> &mut BytesMut {
        &mut self.frame.head
    }

    /// Number of elements, or of bytes that records have: the two are written alike.
    fn count(&mut self, count: usize) {
        if self.flexible { self.varint(count as u32 + 1) } else { self.head().put_i32(count as i32) }
    }

    fn text(&mut self, text: &str) {
        if self.flexible {
            self.varint(text.len() as u32 + 1)
        } else {
            self.head().put_i16(text.len() as i16)
        }
        self.head().put_slice(text.as_bytes());
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.head().put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.head().put_u8(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use kafka_protocol::{
        messages::{FetchResponse, ResponseHeader},
        protocol::Decodable,
    };
    use varve_metadata::model::{Offset, ProducerId};

    use super::*;

    fn slice_of(records: &[u8]) -> LogSlice {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(records, 7).unwrap();
        LogSlice {
            file: Arc::new(file),
            position: 7,
            len: records.len() as u32,
            first: Offset::ZERO,
            next: Offset::ZERO,
        }
    }

    fn answer(version: i16, records: Vec<Records>) -> FetchAnswer {
        let topic = if version >= 13 { TopicKey::Id(Uuid::from_u128(77)) } else { TopicKey::Named("logs".into()) };
        let partitions = records.into_iter().zip(0..).map(|(records, index)| PartitionAnswer {
            index,
            error: 0,
            high_watermark: 90,
            last_stable: 80,
            log_start: 3,
            aborted: (index == 0).then(|| {
                let number = |raw| Offset::new(raw).unwrap();
                let producer = ProducerId::from_wire(5).unwrap();
                vec![AbortedTxn { producer, first: number(6), last: number(7), last_stable: number(8) }]
            }),
            records,
            diverging: (index == 1).then_some((4, 44)),
            leader: (index == 1).then_some((1, 9)),
            preferred: (index == 1).then_some(3),
        });
        let rack = Some("r1".to_owned());
        let leaders = vec![NodeEndpoint { id: 1, host: "h".into(), port: 9092, rack }];
        FetchAnswer {
            throttle: Duration::from_millis(7),
            error: 0,
            session_id: 12,
            topics: vec![TopicAnswer { topic, partitions: partitions.collect() }],
            leaders,
        }
    }

    /// What a client receives: the head with the records in their places.
    fn received(frame: &FetchFrame) -> Bytes {
        let (mut out, mut sent) = (Vec::new(), 0);
        for splice in &frame.splices {
            out.extend_from_slice(&frame.head[sent..splice.at]);
            sent = splice.at;
            match &splice.source {
                Source::Memory(bytes) => out.extend_from_slice(bytes),
                Source::File(slice) => out.extend_from_slice(&slice.read().unwrap()),
            }
        }
        out.extend_from_slice(&frame.head[sent..]);
        out.into()
    }

    #[test]
    fn every_version_decodes_to_what_was_meant() {
        let (small, large) = (vec![1; 100], vec![2; INLINE_BYTES as usize + 1]);
        let remote = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        for version in 4..=18 {
            let records = vec![
                Records::Local(slice_of(&small)),
                Records::None,
                Records::Local(slice_of(&large)),
                Records::Remote(remote.clone()),
            ];
            let frame = encode(version, 42, answer(version, records)).unwrap();
            let mut bytes = received(&frame);
            let length = i32::from_be_bytes(bytes.split_to(4).as_ref().try_into().unwrap());
            assert_eq!(length as usize, bytes.len());
            let header =
                ResponseHeader::decode(&mut bytes, i16::from(ApiKey::Fetch.has_flexible_response_header(version)))
                    .unwrap();
            assert_eq!(header.correlation_id, 42);
            let response = FetchResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "version {version}");
            if version >= 7 {
                assert_eq!((response.error_code, response.session_id), (0, 12));
            }
            let [topic] = response.responses.as_slice() else { panic!("{response:?}") };
            if version >= 13 {
                assert_eq!(topic.topic_id, Uuid::from_u128(77));
            } else {
                assert_eq!(topic.topic.as_str(), "logs");
            }
            let [first, second, third, fourth] = topic.partitions.as_slice() else { panic!("{topic:?}") };
            assert_eq!((first.high_watermark, first.last_stable_offset), (90, 80));
            assert_eq!(first.log_start_offset, if version >= 5 { 3 } else { -1 });
            let aborted = first.aborted_transactions.as_ref().unwrap();
            assert_eq!((aborted[0].producer_id.0, aborted[0].first_offset), (5, 6));
            assert_eq!(second.aborted_transactions, None);
            assert_eq!(first.records.as_deref(), Some(small.as_slice()));
            assert_eq!(second.records.as_deref(), Some(b"".as_slice()));
            assert_eq!(third.records.as_deref(), Some(large.as_slice()));
            assert_eq!(fourth.records.as_deref(), Some(b"abc".as_slice()));
            if version >= FLEXIBLE_SINCE {
                assert_eq!((second.diverging_epoch.epoch, second.diverging_epoch.end_offset), (4, 44));
                assert_eq!((second.current_leader.leader_id.0, second.current_leader.leader_epoch), (1, 9));
            }
            if version >= 11 {
                assert_eq!((first.preferred_read_replica.0, second.preferred_read_replica.0), (-1, 3));
            }
            if version >= 16 {
                assert_eq!(response.node_endpoints[0].rack.as_deref(), Some("r1"));
            }
        }
    }
}
