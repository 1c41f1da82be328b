//! What cluster state costs at scale: bytes in the store, time and memory to read it, time to fail a broker over.
//!
//! `cargo run --release -p varve-metadata --example scale -- BROKERS PARTITIONS` (default: 100 and 100 000). The store is in
//! memory and takes as much at once as etcd: what etcd itself takes for the transactions comes on top.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use varve_metadata::{
    cluster::ClusterMetadata,
    controller::{CreationDefaults, NewTopic, Placement},
    image::{BrokerImage, Endpoint, ImageBuilder},
    model::BrokerId,
    store::{MemoryStore, MetadataStore, Transaction, TransactionLimits},
};

const IMAGES: u64 = 4;
const PARTITIONS_PER_TOPIC: u32 = 100;
/// etcd's, as `EtcdStore` uses them.
const LIMITS: TransactionLimits = TransactionLimits { operations: 128, bytes: 1 << 20 };

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let brokers = numbers.next().transpose()?.unwrap_or(100);
    let partitions = numbers.next().transpose()?.unwrap_or(100_000);
    let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::with_limits(LIMITS));
    let metadata = ClusterMetadata::start(store.clone(), BrokerId(0), BTreeMap::new()).await?;
    for id in 0..brokers {
        let broker = broker(id);
        let life = format!(r#"{{"v":1,"incarnation":"{}"}}"#, broker.incarnation);
        metadata.register(broker).await?;
        store.transact(Transaction::default().put(format!("live/{id}"), life)).await?;
    }

    let begun = Instant::now();
    let defaults = CreationDefaults { partitions: 1, replication_factor: 3 };
    for number in 0..partitions.div_ceil(PARTITIONS_PER_TOPIC) {
        let placement = Ok(Placement::Spread { partitions: Some(PARTITIONS_PER_TOPIC), replication_factor: Some(3) });
        let topic = NewTopic { name: format!("topic-{number}"), placement, overrides: BTreeMap::new() };
        metadata.create_topics(&[topic], defaults, false, None).await?.remove(0)?;
    }
    println!(
        "{brokers} brokers, {} partitions of 3 replicas, made in {:.1?}",
        metadata.image().partition_count(),
        begun.elapsed()
    );

    let snapshot = store.range("").await?;
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (key, entry) in &snapshot.entries {
        let kind = key.split('/').next().unwrap_or(key);
        let (count, bytes) = kinds.entry(kind).or_default();
        *count += 1;
        *bytes += key.len() + entry.value.len();
    }
    for (kind, (count, bytes)) in &kinds {
        println!("  {kind}: {count} keys, {bytes} bytes");
    }
    let total: usize = kinds.values().map(|(_, bytes)| bytes).sum();
    println!("  all: {} keys, {:.1} MiB", snapshot.entries.len(), total as f64 / f64::from(1 << 20));

    let (begun, before) = (Instant::now(), resident_kib()?);
    let mut builder = ImageBuilder::new(BrokerId(0), BTreeMap::new());
    builder.load(&snapshot)?;
    let took = begun.elapsed();
    // Several of them, so that memory which was free before does not hide what one takes.
    let mut others = Vec::new();
    for _ in 1..IMAGES {
        let mut another = ImageBuilder::new(BrokerId(0), BTreeMap::new());
        another.load(&snapshot)?;
        others.push(another);
    }
    let each = (resident_kib()?.saturating_sub(before) / IMAGES) >> 10;
    println!("read into an image in {took:.1?}, which takes {each} MiB of memory");
    drop(others);

    let idle = Instant::now();
    let due = metadata.tend().await?;
    println!("a look at everything, nothing due ({due}): {:.1?}", idle.elapsed());

    let gone = BrokerId(1);
    let led = metadata
        .image()
        .topics()
        .values()
        .flat_map(|topic| &topic.partitions)
        .filter(|one| one.leader == Some(gone))
        .count();
    let before = store.range("cluster").await?.revision;
    store.transact(Transaction::default().delete(format!("live/{gone}"))).await?;
    let mut images = metadata.subscribe();
    images.wait_for(|image| image.membership().live(gone).is_none()).await?;
    let begun = Instant::now();
    while metadata.tend().await? {}
    let took = begun.elapsed();
    let transactions = store.range("cluster").await?.revision.0 - before.0 - 1;
    let leaderless = |image: &varve_metadata::image::ClusterImage| {
        image
            .topics()
            .values()
            .flat_map(|topic| &topic.partitions)
            .filter(|one| one.leader.is_none_or(|id| id == gone))
            .count()
    };
    assert_eq!(leaderless(&metadata.image()), 0);
    println!(
        "a broker that led {led} partitions fails over in {transactions} transactions, {took:.1?} of this core's time"
    );
    assert!(took < Duration::from_secs(600));
    Ok(())
}

/// Memory of this process.
fn resident_kib() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

fn broker(id: u32) -> BrokerImage {
    let endpoint = Endpoint { host: format!("broker-{id}.example.org"), port: 9092 };
    BrokerImage {
        id: BrokerId(id),
        incarnation: uuid::Uuid::new_v4(),
        endpoints: BTreeMap::from([("PLAINTEXT".to_owned(), endpoint)]),
        rack: Some(format!("rack-{}", id % 3)),
        fenced: false,
        ..BrokerImage::default()
    }
}
