//! What disks and buckets hold, made by the code that writes it.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use uuid::Uuid;
use varve_broker::coordinator::{
    AssignedTasks, CommittedOffset, CopartitionGroup, Endpoint, Generation, InternalTopic, LogRecord, MemberEpoch,
    MemberState, Protocol, StreamsMemberState, Subtopology, TaskSet, Tasks, Topology,
    records::{
        ClassicMetadata, ConsumerMemberRecord, ConsumerRecord, CoordinatorRecord, CurrentRecord, GroupEpochRecord,
        GroupMetadata, KeptPartitions, MemberMetadata, OffsetKey, ResolvedRegex, ShareCurrentRecord, ShareGroupRecord,
        ShareMemberRecord, StreamsCurrentRecord, StreamsGroupRecord, StreamsMemberRecord, StreamsRecord, TargetRecord,
        TopicShare,
    },
    share_state::{DeliveryState, KeptState, ShareKey, ShareRecord, Snapshot, StateBatch, StateEpoch, Update},
    transactions::{
        TopicPartition, TransactionState, TransactionVersion,
        records::{TransactionMetadata, TransactionRecord},
    },
};
use varve_fuzz::input::{Piece, SEGMENT_FILES, join};
use varve_log::{
    format::{BatchBuilder, ControlRecord, RecordContent},
    local::{AppendContext, AppendOrigin, LocalLog, LogConfig, RecoveryStart},
};
use varve_metadata::{
    config::Codec,
    model::{
        LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId,
        TopicName,
    },
};
use varve_table::{EncodeOptions, TableMeta, encode};
use varve_tiering::{
    manifest::{Leaf, Limits, Manifest, ObjectId, ObjectKind, RemoteObject},
    raw::{Attachments, RawBuilder},
};

use crate::Seeds;

const NOW: i64 = 1_700_000_000_000;

fn at(raw: u64) -> Offset {
    Offset::new(raw).expect("small")
}

fn now() -> Timestamp {
    Timestamp::from_wire(NOW).expect("a time")
}

fn partition() -> PartitionId {
    let topic = TopicId::from_wire(Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef)).expect("an id");
    PartitionId { topic, index: PartitionIndex(3) }
}

/// A batch of two records at `base`; with a codec, or plain, idempotent and in a transaction.
pub(crate) fn batch(base: u64, codec: Option<Codec>, value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(at(base)).leader_epoch(LeaderEpoch(1));
    builder = match codec {
        Some(codec) => builder.compression(codec, None),
        None => builder.producer(
            ProducerId::from_wire(9).expect("an id"),
            ProducerEpoch(0),
            Sequence::from_wire(base as i32),
        ),
    };
    for key in [Some(b"key".as_slice()), None] {
        let headers = [(b"h".as_slice(), Some(b"v".as_slice()))];
        builder.push(RecordContent { timestamp: Some(now()), key, value: Some(value), headers: &headers });
    }
    builder.build().expect("small")
}

const CODECS: [Option<Codec>; 5] = [None, Some(Codec::Gzip), Some(Codec::Snappy), Some(Codec::Lz4), Some(Codec::Zstd)];

/// One batch of each codec, offsets ascending by two.
fn run() -> Vec<u8> {
    CODECS.iter().zip(0..).flat_map(|(codec, turn)| batch(turn * 2, *codec, b"a value, a value, a value")).collect()
}

pub(crate) fn batches() -> Seeds {
    let mut seeds: Seeds = CODECS
        .iter()
        .map(|codec| {
            let name = codec.map_or("plain".to_owned(), |codec| format!("{codec:?}").to_lowercase());
            (name, batch(0, *codec, b"a value, a value, a value"))
        })
        .collect();
    let producer = ProducerId::from_wire(9).expect("an id");
    let marker = ControlRecord::Abort { coordinator_epoch: 1 }.batch(producer, ProducerEpoch(0), now());
    seeds.push(("marker".into(), marker));
    seeds.push(("run".into(), run()));
    seeds
}

pub(crate) fn coordinator_records() -> Seeds {
    let key = OffsetKey { group: "g".into(), topic: "web.clicks".into(), partition: PartitionIndex(3) };
    let committed = CommittedOffset {
        offset: 42,
        leader_epoch: Some(LeaderEpoch(1)),
        metadata: "m".into(),
        committed_at: now(),
        expires_at: None,
        topic_id: Some(partition().topic),
    };
    let expiring = CommittedOffset { expires_at: Some(now()), topic_id: None, leader_epoch: None, ..committed.clone() };
    let member = MemberMetadata {
        member_id: "m1".into(),
        instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout: Duration::from_secs(60),
        session_timeout: Duration::from_secs(10),
        subscription: Bytes::from_static(&[1, 2]),
        assignment: Bytes::from_static(&[3]),
    };
    let group = GroupMetadata {
        protocol_type: "consumer".into(),
        generation: Generation(5),
        protocol: Some("range".into()),
        leader: Some("m1".into()),
        state_since: Some(now()),
        members: vec![member],
    };
    let mut all = vec![
        ("offset", CoordinatorRecord::Offset(key.clone(), Some(committed))),
        ("expiring", CoordinatorRecord::Offset(key.clone(), Some(expiring))),
        ("removed", CoordinatorRecord::Offset(key, None)),
        ("group", CoordinatorRecord::Group("g".into(), Some(group))),
        ("ended", CoordinatorRecord::Group("g".into(), None)),
    ];
    let of_consumers = consumer_records().into_iter();
    all.extend(of_consumers.map(|(name, record)| (name, CoordinatorRecord::Consumer(record))));
    let of_shares = share_group_records().into_iter();
    all.extend(of_shares.map(|(name, record)| (name, CoordinatorRecord::Share(record))));
    all.extend(streams_records().into_iter().map(|(name, record)| (name, CoordinatorRecord::Streams(record))));
    all.into_iter().map(record_input).collect()
}

/// The records of a share group (KIP-932).
fn share_group_records() -> Vec<(&'static str, ShareGroupRecord)> {
    let (group, member) = (|| "s".to_owned(), || "m1".to_owned());
    let described = ShareMemberRecord {
        rack_id: Some("r".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        topics: ["web.clicks".into()].into(),
    };
    let (topic, index) = (partition().topic, partition().index);
    let current = ShareCurrentRecord {
        epoch: MemberEpoch(5),
        previous_epoch: MemberEpoch(4),
        assigned: [(topic, [index].into())].into(),
    };
    let share = TopicShare { name: "web.clicks".into(), partitions: [index].into() };
    let kept = KeptPartitions {
        begun: [(topic, TopicShare { partitions: [PartitionIndex(4)].into(), ..share.clone() })].into(),
        kept: [(topic, share)].into(),
        ending: [(topic, "web.gone".into())].into(),
    };
    let target = TargetRecord { epoch: 5, assigned_at: Some(now()) };
    vec![
        ("share-epoch", ShareGroupRecord::Group(group(), Some(GroupEpochRecord { epoch: 5, metadata_hash: 7 }))),
        ("share-member", ShareGroupRecord::Member(group(), member(), Some(described))),
        ("share-target", ShareGroupRecord::Target(group(), Some(target))),
        (
            "share-member-target",
            ShareGroupRecord::MemberTarget(group(), member(), Some([(topic, [index].into())].into())),
        ),
        ("share-current", ShareGroupRecord::Current(group(), member(), Some(current))),
        ("share-partitions", ShareGroupRecord::Partitions(group(), Some(kept))),
        ("share-left", ShareGroupRecord::Member(group(), member(), None)),
    ]
}

/// What the keepers of share partitions write.
pub(crate) fn share_records() -> Seeds {
    let PartitionId { topic, index } = partition();
    let key = ShareKey { group: "s".into(), topic, partition: index };
    let batches = vec![
        StateBatch { first: at(10), last: at(12), state: DeliveryState::Available, deliveries: 2 },
        StateBatch { first: at(13), last: at(13), state: DeliveryState::Archived, deliveries: 5 },
    ];
    let state = KeptState {
        state_epoch: StateEpoch(1),
        leader_epoch: Some(LeaderEpoch(3)),
        start: Some(at(10)),
        settled: Some(1),
        batches: batches.clone(),
    };
    let snapshot = Snapshot { epoch: 7, state, made_at: now(), written_at: now() };
    let update =
        Update { snapshot_epoch: 7, leader_epoch: Some(LeaderEpoch(3)), start: Some(at(10)), settled: None, batches };
    [
        ("snapshot", ShareRecord::Snapshot(key.clone(), Some(snapshot))),
        ("ended", ShareRecord::Snapshot(key.clone(), None)),
        ("update", ShareRecord::Update(key, update)),
    ]
    .map(record_input)
    .into()
}

/// The records of a consumer group (KIP-848).
fn consumer_records() -> Vec<(&'static str, ConsumerRecord)> {
    let (group, member) = (|| "g".to_owned(), || "m1".to_owned());
    let metadata = Bytes::from_static(&[1, 2]);
    let described = ConsumerMemberRecord {
        instance_id: Some("i".into()),
        rack_id: Some("r".into()),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        topics: ["web.clicks".into()].into(),
        regex: Some("web.*".into()),
        rebalance_timeout_ms: 60_000,
        assignor: Some("range".into()),
        classic: Some(ClassicMetadata {
            session_timeout: Duration::from_secs(10),
            protocols: vec![Protocol { name: "range".into(), metadata }],
        }),
    };
    let (topic, index) = (partition().topic, partition().index);
    let current = CurrentRecord {
        epoch: MemberEpoch(5),
        previous_epoch: MemberEpoch(4),
        state: MemberState::UnrevokedPartitions,
        assigned: [(topic, [(index, 3)].into())].into(),
        pending_revocation: [(topic, [(PartitionIndex(4), 4)].into())].into(),
    };
    let target = TargetRecord { epoch: 5, assigned_at: Some(now()) };
    let resolved = ResolvedRegex { topics: ["web.clicks".into()].into(), version: 7, at: now() };
    vec![
        ("epoch", ConsumerRecord::Group(group(), Some(GroupEpochRecord { epoch: 5, metadata_hash: 7 }))),
        ("member", ConsumerRecord::Member(group(), member(), Some(described))),
        ("target", ConsumerRecord::Target(group(), Some(target))),
        ("member-target", ConsumerRecord::MemberTarget(group(), member(), Some([(topic, [index].into())].into()))),
        ("current", ConsumerRecord::Current(group(), member(), Some(current))),
        ("pattern", ConsumerRecord::Regex(group(), "web.*".into(), Some(resolved))),
        ("topics", ConsumerRecord::TopicsMetadata(group(), true)),
        ("left", ConsumerRecord::Member(group(), member(), None)),
    ]
}

/// The records of a streams group (KIP-1071).
fn streams_records() -> Vec<(&'static str, StreamsRecord)> {
    let (group, member) = (|| "g".to_owned(), || "m1".to_owned());
    let epoch = StreamsGroupRecord {
        epoch: 5,
        metadata_hash: 7,
        validated_topology_epoch: 0,
        assignment_configs: [("num.standby.replicas".into(), "1".into())].into(),
    };
    let described = StreamsMemberRecord {
        instance_id: None,
        rack_id: Some("r".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 60_000,
        topology_epoch: 0,
        process_id: "p".into(),
        endpoint: Some(Endpoint { host: "h".into(), port: 65535 }),
        tags: [("a".into(), "b".into()), ("c".into(), "d".into())].into(),
    };
    let of = |subtopology: &str, tasks: &[u32]| -> TaskSet {
        [(subtopology.to_owned(), tasks.iter().copied().map(PartitionIndex).collect())].into()
    };
    let mut active = of("0", &[0, 1]);
    active.extend(of("1", &[2]));
    let target = Tasks { active, standby: of("1", &[3]), warmup: TaskSet::new() };
    let current = StreamsCurrentRecord {
        epoch: MemberEpoch(5),
        previous_epoch: MemberEpoch(4),
        state: StreamsMemberState::UnrevokedTasks,
        assigned: AssignedTasks {
            active: [("0".into(), [(PartitionIndex(0), 3), (PartitionIndex(1), 5)].into())].into(),
            standby: of("1", &[3]),
            warmup: TaskSet::new(),
        },
        pending_revocation: AssignedTasks {
            active: [("1".into(), [(PartitionIndex(2), 4)].into())].into(),
            standby: TaskSet::new(),
            warmup: of("0", &[9]),
        },
    };
    let changelog = InternalTopic {
        name: "c".into(),
        partitions: 0,
        replication_factor: 1,
        configs: vec![("k".into(), "v".into())],
    };
    let copartitioned =
        CopartitionGroup { source_topics: vec![0, 1], source_topic_regexes: vec![0], repartition_sources: vec![] };
    let first = Subtopology {
        id: "0".into(),
        source_topics: vec!["s".into(), "q".into()],
        source_topic_regexes: vec!["x.*".into()],
        changelogs: vec![changelog],
        repartition_sinks: vec!["r".into()],
        repartition_sources: vec![],
        copartition_groups: vec![copartitioned],
    };
    let again = InternalTopic { name: "r".into(), partitions: 3, ..InternalTopic::default() };
    let second = Subtopology { id: "1".into(), repartition_sources: vec![again], ..Subtopology::default() };
    let topology = Topology { epoch: 0, subtopologies: vec![first, second] };
    vec![
        ("streams-epoch", StreamsRecord::Group(group(), Some(epoch))),
        ("streams-member", StreamsRecord::Member(group(), member(), Some(described))),
        ("streams-member-target", StreamsRecord::MemberTarget(group(), member(), Some(target))),
        ("streams-current", StreamsRecord::Current(group(), member(), Some(current))),
        ("streams-topology", StreamsRecord::Topology(group(), Some(Arc::new(topology)))),
        ("streams-left", StreamsRecord::Member(group(), member(), None)),
    ]
}

fn record_input((name, record): (&str, impl LogRecord)) -> (String, Vec<u8>) {
    let record = record.encode().expect("short names");
    let mut input = vec![u8::from(record.value.is_some()), record.key.len() as u8];
    input.extend(record.key);
    input.extend(record.value.unwrap_or_default());
    (name.to_owned(), input)
}

pub(crate) fn transaction_records() -> Seeds {
    let at = |topic: &str, partition| TopicPartition { topic: topic.into(), partition: PartitionIndex(partition) };
    let producer = ProducerId::from_wire;
    let ending = TransactionMetadata {
        producer: producer(1000).expect("not negative"),
        previous_producer: producer(999),
        next_producer: producer(1001),
        epoch: Some(ProducerEpoch(5)),
        timeout_ms: 60_000,
        state: TransactionState::PrepareCommit,
        partitions: [at("a", 0), at("a", 3), at("web.clicks", 1)].into(),
        updated: now(),
        started: Some(now()),
        version: TransactionVersion::Raising,
    };
    let empty = TransactionMetadata {
        next_producer: None,
        state: TransactionState::Empty,
        partitions: [].into(),
        started: None,
        version: TransactionVersion::Fixed,
        ..ending.clone()
    };
    [("ending", Some(ending)), ("empty", Some(empty)), ("forgotten", None)]
        .map(|(name, metadata)| {
            record_input((name, TransactionRecord { transactional_id: "orders-1".into(), metadata }))
        })
        .into()
}

pub(crate) fn manifests() -> Seeds {
    let topic = TopicName::parse("web.clicks").expect("a name");
    let mut manifest = Manifest::new(partition(), topic);
    for index in 0..12_u64 {
        let kind = if index < 5 { ObjectKind::Parquet } else { ObjectKind::Raw };
        let object = RemoteObject {
            id: ObjectId(Uuid::from_u128(0x0123_4567_89ab_4cde_8f01_2345_6789_0000 + u128::from(index))),
            kind,
            base: at(index * 10),
            end: at(index * 10 + 10),
            bytes: 1000,
            log_bytes: 900,
            records: 10,
            max_timestamp: Some(now()),
            writer_epoch: LeaderEpoch(0),
            leader_epochs: vec![(LeaderEpoch(0), at(index * 10))],
            crc32c: 7,
            shared_at: (index == 11).then_some(512),
        };
        manifest = manifest.with(LeaderEpoch(0), object).expect("the next object");
    }
    let mut ids = 1_u128;
    let limits = Limits { inline: 6, keep: 2, leaf: 5 };
    let (packed, leaves) = manifest.clone().pack(limits, || {
        ids += 1;
        Uuid::from_u128(0x0123_4567_89ab_4cde_8f01_2345_6789_1000 + ids)
    });
    let sealed = |bytes: Vec<u8>| [vec![1], bytes].concat();
    let new = LeaderEpoch(1);
    let parted = manifest.claimed_by(new).and_then(|claimed| claimed.parted_at(new, at(90), Vec::new(), now()));
    let mut seeds = vec![
        ("inline".into(), sealed(manifest.encode())),
        ("packed".into(), sealed(packed.encode())),
        ("parted".into(), sealed(parted.expect("between two objects").encode())),
    ];
    let leaf: Option<&Leaf> = leaves.first().map(|(_, leaf)| leaf);
    seeds.extend(leaf.map(|leaf| ("leaf".into(), sealed(leaf.encode()))));
    seeds
}

pub(crate) fn raw_objects() -> Seeds {
    let mut builder = RawBuilder::new(at(0), at(10));
    builder.push(&run()).expect("sound batches");
    let producer_snapshot = Bytes::from_static(&[0, 1, 2, 3]);
    let (tail, summary) = builder.finish(Attachments { aborted: Vec::new(), producer_snapshot }).expect("a whole run");
    let input = |before: u64, bytes: &[u8]| [&[1], &(before as u16).to_be_bytes()[..], bytes].concat();
    vec![
        ("tail".into(), input(summary.log_bytes, &tail)),
        ("whole".into(), input(0, &[run(), tail].concat())),
        ("batches".into(), input(0, &run())),
    ]
}

pub(crate) fn tables() -> Seeds {
    let log = run();
    let table = |options: EncodeOptions| {
        let meta = TableMeta {
            partition: partition(),
            base: at(0),
            end: at(10),
            leader_epochs: vec![(LeaderEpoch(1), at(0))],
            aborted: Vec::new(),
            producers: None,
        };
        let batches = varve_log::format::batches(&log).map(|batch| batch.expect("sound"));
        encode(batches, meta, options).expect("sound batches").bytes.to_vec()
    };
    let one = EncodeOptions { tag_filter_max_bytes: 0, ..EncodeOptions::default() };
    let several = EncodeOptions { group_bytes: 150, page_bytes: 50, ..one.clone() };
    vec![("one-group".into(), table(one)), ("several-groups".into(), table(several))]
}

/// A log of two segments with a transaction aborted, and its directory's files.
fn log_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let config = Arc::new(LogConfig { index_interval_bytes: 100, ..LogConfig::default() });
    let (log, _) = LocalLog::open(dir, config, RecoveryStart::NEW, now()).expect("a new log");
    let client = AppendContext { leader_epoch: LeaderEpoch(1), now: now(), origin: AppendOrigin::Client };
    let append = |bytes: &[u8], context: AppendContext| {
        // Clients leave the base offset to the log; no checksum covers it.
        let mut bytes = bytes.to_vec();
        bytes[..8].fill(0);
        log.append(&bytes, context).expect("a sound batch");
    };
    let producer = ProducerId::from_wire(5).expect("an id");
    for turn in 0..3 {
        append(&batch(turn * 2, None, b"value"), client);
    }
    let mut transactional =
        BatchBuilder::new(at(0)).producer(producer, ProducerEpoch(0), Sequence::from_wire(0)).transactional();
    transactional.push(RecordContent { timestamp: Some(now()), value: Some(b"t"), ..RecordContent::default() });
    append(&transactional.build().expect("small"), client);
    let marker = ControlRecord::Abort { coordinator_epoch: 0 }.batch(producer, ProducerEpoch(0), now());
    append(&marker, AppendContext { origin: AppendOrigin::Coordinator, ..client });
    log.advance_high_watermark(log.end().0);
    log.roll().expect("a new segment");
    append(&batch(0, Some(Codec::Zstd), b"value"), AppendContext { leader_epoch: LeaderEpoch(2), ..client });
    append(&batch(6, None, b"value"), AppendContext { leader_epoch: LeaderEpoch(2), ..client });
    log.close().expect("an empty disk");
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let entry = entry.expect("a directory");
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
        })
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    files.sort();
    files
}

pub(crate) fn segments() -> Seeds {
    let dir = tempfile::tempdir().expect("a place for a log");
    let files = log_files(dir.path());
    let input = |flags: u8, chosen: &dyn Fn(&str) -> bool| {
        let pieces: Vec<Piece<'_>> = files
            .iter()
            .filter(|(name, _)| chosen(name))
            .filter_map(|(name, bytes)| {
                let kind = SEGMENT_FILES.iter().position(|file| file == name)?;
                Some(Piece { kind: kind as u8, bytes })
            })
            .collect();
        [vec![flags], join(&pieces)].concat()
    };
    vec![
        ("clean".into(), input(1 | 8, &|_| true)),
        ("torn".into(), input(8, &|_| true)),
        ("flushed".into(), input(2 | 8, &|_| true)),
        ("from-three".into(), input(4 | 8, &|_| true)),
        ("without-indexes".into(), input(1 | 8, &|name| !name.ends_with("index"))),
        ("one-segment".into(), input(8, &|name| name.starts_with("00000000000000000000"))),
        ("damaged".into(), input(0, &|name| name.ends_with(".log") || name.ends_with("checkpoint"))),
    ]
}

pub(crate) fn checkpoints() -> Seeds {
    let dir = tempfile::tempdir().expect("a place for a log");
    let small = |name: &str| ["checkpoint", ".txnindex", ".snapshot"].iter().any(|suffix| name.ends_with(suffix));
    log_files(dir.path()).into_iter().filter(|(name, _)| small(name)).collect()
}
