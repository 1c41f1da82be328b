//! What a large cluster asks of etcd: leases that are renewed, and changes that every broker is told of.
//!
//! `cargo run --release -p varve-tests --example etcd_at_scale -- BROKERS PARTITIONS` (default: 100 and 100 000). Three members on
//! loopback, one store with a lease and a watch of everything for each broker, as brokers have them. It prints the CPU time of all
//! three members: the brokers' own is not in it, although it shares the cores.

#![expect(clippy::print_stdout, reason = "it is what it prints that is wanted")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use varve_metadata::store::{EtcdOptions, EtcdStore, MetadataStore, Revision, Transaction};
use varve_tests::{
    etcd::Etcd,
    process_stat::{cpu_of, resident_megabytes},
};

const MEMBERS: usize = 3;
/// `broker.session.timeout.ms` as it is without configuration.
const LEASE: Duration = Duration::from_secs(9);
/// A partition's key and value have 130 bytes (`cargo run -p varve-metadata --example scale`).
const KEY_AND_VALUE: usize = 130;
const IDLE: Duration = Duration::from_secs(30);
/// Leaders that let a broker in which comes back, each of them one partition at a time: none comes back together with another.
const AT_A_TIME: usize = 16;
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let brokers = numbers.next().transpose()?.unwrap_or(100);
    let partitions = numbers.next().transpose()?.unwrap_or(100_000);
    // Of each broker, with three replicas.
    let held = 3 * partitions / brokers;
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::cluster(folder.path(), MEMBERS)?;
    let store = connect(&etcd, 0).await?;
    for numbers in (0..partitions).collect::<Vec<_>>().chunks(store.limits().operations) {
        store.transact(rewrite(numbers, "made")).await?;
    }
    println!("{brokers} brokers, {partitions} partitions, {MEMBERS} members of etcd");

    let before = cpu(&etcd)?;
    let begun = Instant::now();
    let snapshot = store.range("").await?;
    ensure!(snapshot.entries.len() == partitions, "{} keys were found", snapshot.entries.len());
    println!("one broker reads everything: {:.2?}, etcd's CPU {:.2?}", begun.elapsed(), cpu(&etcd)? - before);

    let seen = Arc::new(Seen::default());
    let mut tasks = JoinSet::new();
    let mut followed = Vec::new();
    for id in 0..brokers {
        let store = connect(&etcd, id).await?;
        let lease = store.grant(LEASE).await?;
        let live = store.transact(Transaction::default().put_leased(format!("live/{id}"), "{}", lease)).await?;
        let mut changes = store.watch("", live);
        let (told, newest) = watch::channel(live);
        followed.push(newest);
        let seen_here = seen.clone();
        tasks.spawn(async move {
            loop {
                let batch = changes.next().await.context("what changed")?;
                seen_here.changes.fetch_add(batch.changes.len() as u64, Ordering::Relaxed);
                told.send_replace(batch.revision);
            }
        });
        let seen_here = seen.clone();
        tasks.spawn(async move {
            loop {
                sleep(LEASE / 3).await;
                ensure!(store.renew(lease).await?, "the lease of broker {id} ended");
                seen_here.renewals.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let all = Cluster { etcd, followed, seen, tasks };
    let last = store.transact(Transaction::default().put("cluster", "{}")).await?;
    all.have_heard_of(last).await?;

    let before = all.begin()?;
    sleep(IDLE).await;
    let after = all.begin()?;
    let (spent, renewals) = (after.cpu - before.cpu, after.renewals - before.renewals);
    let share = spent.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!("nothing changes: {:.1} renewals/s, etcd's CPU {share:.1} % of a core", rate(renewals, IDLE));

    let before = all.begin()?;
    let mut last = Revision::default();
    let lost: Vec<usize> = (0..held).collect();
    for numbers in lost.chunks(store.limits().operations) {
        last = store.transact(rewrite(numbers, "lost")).await?;
    }
    let written = before.at.elapsed();
    all.have_heard_of(last).await?;
    println!(
        "a broker ends, {held} partitions in large transactions, written in {written:.2?}: {}",
        all.since(&before)?
    );

    let before = all.begin()?;
    let mut back = JoinSet::new();
    let store = Arc::new(store);
    let mut last = Revision::default();
    for number in lost {
        if back.len() == AT_A_TIME {
            last = last.max(back.join_next().await.context("one is under way")???);
        }
        let store = store.clone();
        back.spawn(async move { store.transact(rewrite(&[number], "back")).await });
    }
    for revision in back.join_all().await {
        last = last.max(revision?);
    }
    let written = before.at.elapsed();
    all.have_heard_of(last).await?;
    println!("it comes back, {held} transactions of one partition, written in {written:.2?}: {}", all.since(&before)?);
    for (at, member) in all.etcd.iter().enumerate() {
        println!("member {at}: {:.0} MB of memory", resident_megabytes(member.process())?);
    }
    Ok(())
}

/// The brokers' stores, spread over the members.
struct Cluster {
    etcd: Vec<Etcd>,
    followed: Vec<watch::Receiver<Revision>>,
    seen: Arc<Seen>,
    tasks: JoinSet<Result<()>>,
}

/// What all brokers did so far.
#[derive(Default)]
struct Seen {
    changes: AtomicU64,
    renewals: AtomicU64,
}

/// Where something begins.
struct Mark {
    at: Instant,
    cpu: Duration,
    changes: u64,
    renewals: u64,
}

impl Cluster {
    fn begin(&self) -> Result<Mark> {
        let (changes, renewals) = (&self.seen.changes, &self.seen.renewals);
        let (changes, renewals) = (changes.load(Ordering::Relaxed), renewals.load(Ordering::Relaxed));
        Ok(Mark { at: Instant::now(), cpu: cpu(&self.etcd)?, changes, renewals })
    }

    fn since(&self, before: &Mark) -> Result<String> {
        let now = self.begin()?;
        let (took, changes) = (now.at - before.at, now.changes - before.changes);
        let cpu = now.cpu - before.cpu;
        let each = cpu.as_secs_f64() / changes as f64 * 1e6;
        Ok(format!(
            "all have heard of it after {took:.2?}, {changes} changes told, etcd's CPU {cpu:.2?}, {each:.1} us a change told"
        ))
    }

    /// Waits until every broker knows what `revision` wrote.
    async fn have_heard_of(&self, revision: Revision) -> Result<()> {
        for newest in &self.followed {
            timeout(PATIENCE, newest.clone().wait_for(|known| *known >= revision))
                .await
                .context("a broker does not hear")??;
        }
        ensure!(!self.tasks.is_empty(), "brokers go on");
        Ok(())
    }
}

/// CPU time of all members so far.
fn cpu(etcd: &[Etcd]) -> Result<Duration> {
    etcd.iter().map(|member| cpu_of(member.process())).sum()
}

async fn connect(etcd: &[Etcd], number: usize) -> Result<EtcdStore> {
    let options = EtcdOptions {
        endpoints: etcd.iter().map(|member| member.address().to_string()).collect(),
        begin_with: number % etcd.len(),
        prefix: "/varve".to_owned(),
        tls: None,
        credentials: None,
        request_timeout: Duration::from_secs(60),
    };
    Ok(EtcdStore::connect(&options).await?)
}

/// Sets the keys of these partitions.
fn rewrite(numbers: &[usize], why: &str) -> Transaction {
    numbers.iter().fold(Transaction::default(), |all, number| {
        let key = format!("partitions/{number}");
        let value = format!("{why:-<width$}", width = KEY_AND_VALUE - key.len());
        all.put(key, value)
    })
}

fn rate(count: u64, over: Duration) -> f64 {
    count as f64 / over.as_secs_f64()
}
