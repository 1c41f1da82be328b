//! Cluster state in a real etcd: the promises of every store, and what etcd's weather adds to them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};
use varve_metadata::{
    cluster::{ClusterMetadata, Joining, Member},
    controller::{CreationDefaults, NewTopic, Placement},
    image::{BrokerImage, ClusterImage},
    model::BrokerId,
    store::{
        ConnectError, EtcdCredentials, EtcdOptions, EtcdStore, EtcdTls, Expect, MetadataStore, PutBack, Revision,
        StoreError, Transaction, WatchError, conformance, transact_settled,
    },
};
use varve_tests::{
    cutter::Cutter,
    etcd::{Etcd, TOKEN},
    node::eventually,
};

const PATIENCE: Duration = Duration::from_secs(300);

fn options(endpoint: impl ToString, prefix: &str) -> EtcdOptions {
    EtcdOptions {
        endpoints: vec![endpoint.to_string()],
        begin_with: 0,
        prefix: prefix.to_owned(),
        tls: None,
        credentials: None,
        request_timeout: Duration::from_secs(15),
    }
}

fn put(key: &str, value: impl ToString) -> Transaction {
    Transaction::default().put(key, value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_every_promise_of_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path()).unwrap();
    let count = AtomicU32::new(0);
    conformance::check(async || {
        let prefix = format!("/cluster-{}", count.fetch_add(1, Ordering::Relaxed));
        EtcdStore::connect(&options(etcd.address(), &prefix)).await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_in_one_etcd_do_not_see_each_other_and_large_ranges_come_whole() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path()).unwrap();
    let one = EtcdStore::connect(&options(etcd.address(), "/a")).await.unwrap();
    let other = EtcdStore::connect(&options(etcd.address(), "/ab")).await.unwrap();
    other.transact(put("k", "other")).await.unwrap();
    let keys: Vec<String> = (0..5000).map(|number| format!("k/{number:05}")).collect();
    for chunk in keys.chunks(one.limits().operations) {
        let writes = chunk.iter().fold(Transaction::default(), |all, key| all.put(key.clone(), "v"));
        one.transact(writes).await.unwrap();
    }
    let found = one.range("").await.unwrap();
    assert_eq!(found.entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys);
    let too_large = keys.iter().take(one.limits().operations + 1);
    let too_large = too_large.fold(Transaction::default(), |all, key| all.put(key.clone(), "w"));
    assert!(matches!(one.transact(too_large).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_goes_and_comes_back_is_followed_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(folder.path()).unwrap();
    let store = EtcdStore::connect(&options(etcd.address(), "/varve")).await.unwrap();
    let before = store.transact(put("a", 1)).await.unwrap();
    let mut watch = store.watch("", before);
    etcd.kill();
    assert!(matches!(store.get("a").await, Err(StoreError::Unavailable(_))));
    let refused = store.transact(put("a", 2)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_) | StoreError::Unknown(_))), "{refused:?}");
    etcd.restart().unwrap();
    // Somebody else is quicker to come back than our watch.
    etcd.ctl(&["put", "/varve/b", "3"]).unwrap();
    let batch = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    assert_eq!((batch.changes[0].key.as_str(), batch.changes[0].value.as_deref()), ("b", Some(b"3".as_slice())));
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_compacted_meanwhile_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path()).unwrap();
    let cutter = Cutter::to(etcd.address()).unwrap();
    let store = EtcdStore::connect(&options(cutter.address(), "/varve")).await.unwrap();
    let before = store.transact(put("a", 1)).await.unwrap();
    let mut watch = store.watch("", before);
    cutter.close();
    for value in 0..10 {
        etcd.ctl(&["put", "/varve/a", &value.to_string()]).unwrap();
    }
    let newest = Revision(before.0 + 10);
    etcd.ctl(&["compact", &newest.0.to_string()]).unwrap();
    cutter.open();
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap(), Err(WatchError::Compacted));
    let snapshot = store.range("").await.unwrap();
    assert_eq!((snapshot.revision, snapshot.entries[0].1.value.as_ref()), (newest, b"9".as_slice()));
    let mut watch = store.watch("", snapshot.revision);
    let revision = store.transact(put("a", 10)).await.unwrap();
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().revision, revision);
}

/// What a watch says of an etcd that was restored from a backup under another or the same `token`, and has taken `writes` since,
/// before the watch got there; and which revision it had seen.
async fn restored(token: &str, writes: u32) -> (PutBack, Revision) {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(folder.path()).unwrap();
    let cutter = Cutter::to(etcd.address()).unwrap();
    let store = EtcdStore::connect(&options(cutter.address(), "/varve")).await.unwrap();
    let mut seen = store.transact(put("a", 1)).await.unwrap();
    let backup = folder.path().join("backup.db");
    etcd.save(&backup).unwrap();
    let mut watch = store.watch("", seen);
    for value in 2..5 {
        seen = store.transact(put("a", value)).await.unwrap();
        assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().revision, seen);
    }
    cutter.close();
    etcd.restore(&backup, token).unwrap();
    for value in 0..writes {
        etcd.ctl(&["put", "/varve/b", &value.to_string()]).unwrap();
    }
    cutter.open();
    match timeout(PATIENCE, watch.next()).await.unwrap() {
        Err(WatchError::PutBack(how)) => (how, seen),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_was_restored_is_not_taken_for_one_that_deleted_what_it_lacks() {
    let (older, seen) = restored(TOKEN, 0).await;
    assert_eq!(older, PutBack::Behind { seen, now: Revision(seen.0 - 3) });
    let (overtaken, revision) = restored(TOKEN, 5).await;
    assert_eq!(overtaken, PutBack::Rewritten { revision });
    let (another, _) = restored("restored", 5).await;
    assert!(matches!(another, PutBack::Another { before, now } if before != now), "{another:?}");
}

/// Four writers count upwards by compare-and-set while the connection is cut again and again: every step that was answered
/// happened once, whatever was lost on the way.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path()).unwrap();
    let cutter = Arc::new(Cutter::to(etcd.address()).unwrap());
    let mut writers = Vec::new();
    for writer in 0..4 {
        let options = EtcdOptions { request_timeout: Duration::from_secs(2), ..options(cutter.address(), "/varve") };
        let store = EtcdStore::connect(&options).await.unwrap();
        let cutter = cutter.clone();
        writers.push(tokio::spawn(async move {
            let key = format!("counter/{writer}");
            let mut expect = Expect::Absent;
            for step in 0..60 {
                // Cut in the middle of it: before it is sent, while it is under way, or after it.
                if step % 5 == writer {
                    let cutter = cutter.clone();
                    tokio::task::spawn_blocking(move || cutter.cut_after_bytes(40 * (step % 7)));
                }
                let count = put(&key, step).expecting(key.clone(), expect);
                let revision = transact_settled(&store, count, Instant::now() + PATIENCE).await.unwrap();
                expect = Expect::At(revision);
            }
            let found = store.range(&key).await.unwrap().entries.remove(0).1;
            assert_eq!((found.value.as_ref(), Expect::At(found.modified)), (b"59".as_slice(), expect));
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let history = etcd.ctl(&["get", "/varve/counter/", "--prefix", "-w", "json"]).unwrap();
    assert_eq!(history.matches("\"version\":60").count(), 4, "each step was taken once: {history}");
}

/// Three brokers' worth of agreement in one process, on the members of `etcd`, each alive for as long as its `lease` without a
/// word.
async fn three_brokers(etcd: &[Etcd], lease: Duration) -> Vec<(Arc<ClusterMetadata>, Member)> {
    let endpoints: Vec<String> = etcd.iter().map(|member| member.address().to_string()).collect();
    let mut members = Vec::new();
    for id in (1..=3).map(BrokerId) {
        let options = EtcdOptions { endpoints: endpoints.clone(), ..options("", "/varve") };
        let store = EtcdStore::connect(&options).await.unwrap();
        let metadata = ClusterMetadata::start(Arc::new(store), id, BTreeMap::new()).await.unwrap();
        let incarnation = uuid::Uuid::new_v4();
        let broker = BrokerImage {
            id,
            incarnation,
            endpoints: BTreeMap::new(),
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        };
        let joining = Joining { broker, lease, may_have_lost_records: false, found: Default::default() };
        let member = Member::join(metadata.clone(), joining).await.unwrap();
        member.admitted(id, incarnation).await;
        members.push((metadata, member));
    }
    members
}

/// The keys that say which brokers live, each with the revision in which it was made.
fn live_keys(etcd: &Etcd) -> Vec<(serde_json::Value, serde_json::Value)> {
    let found = etcd.ctl(&["get", "/varve/live/", "--prefix", "-w", "json"]).unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let lives = found["kvs"].as_array().cloned().unwrap_or_default();
    lives.into_iter().map(|live| (live["key"].clone(), live["create_revision"].clone())).collect()
}

/// Waits until a lease of that length, which nobody renews, has ended.
fn outlive(etcd: &Etcd, length: Duration) {
    let granted = etcd.ctl(&["lease", "grant", &length.as_secs().to_string()]).unwrap();
    let id = granted.split_whitespace().nth(1).unwrap();
    etcd.ctl(&["put", "/others/clock", "runs", "--lease", id]).unwrap();
    eventually("a lease ends", || Ok(etcd.ctl(&["get", "/others/clock"])?.is_empty().then_some(()))).unwrap();
}

async fn create_wide(metadata: &ClusterMetadata, partitions: u32) {
    let placement = Ok(Placement::Spread { partitions: Some(partitions), replication_factor: Some(3) });
    let topic = NewTopic { name: "wide".to_owned(), placement, overrides: BTreeMap::new() };
    let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
    metadata.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_of_a_broker_that_dies_are_followed_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = [Etcd::start(folder.path()).unwrap()];
    let mut members = three_brokers(&etcd, Duration::from_secs(6)).await;
    create_wide(&members[0].0, 900).await;
    // It is the controller as well.
    let mut images = members[0].0.subscribe();
    let decides = images.wait_for(|image| image.membership().controller().is_some());
    let gone = timeout(PATIENCE, decides).await.unwrap().unwrap().membership().controller().unwrap();
    let survivor = members[gone.0 as usize % 3].0.clone();
    let begun = Instant::now();
    drop(members.remove(gone.0 as usize - 1));
    let is_over = |image: &Arc<ClusterImage>| {
        let is_led = |leader: Option<BrokerId>| leader.is_some_and(|leader| leader != gone);
        // Whoever made the topic knows it first.
        image
            .topic("wide")
            .is_some_and(|wide| wide.partitions.iter().all(|one| is_led(one.leader) && !one.isr.contains(&gone)))
    };
    timeout(PATIENCE, survivor.subscribe().wait_for(is_over)).await.unwrap().unwrap();
    println!("900 partitions, 300 of them without a leader, are led after {:?}", begun.elapsed());
}

/// etcd is away for longer than a lease, and leases are lost behind the brokers' backs: nobody has to be restarted.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_go_on_in_the_same_life_after_etcd_was_away_and_after_their_leases_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = [Etcd::start(folder.path()).unwrap()];
    let members = three_brokers(&etcd, Duration::from_secs(4)).await;
    let metadata = members[0].0.clone();
    create_wide(&metadata, 30).await;
    let lives = |image: &ClusterImage| (1..=3).map(|id| image.membership().live(BrokerId(id))).collect::<Vec<_>>();
    let before = metadata.image();
    etcd[0].kill();
    // For longer than a lease lives, what is known stays known.
    let mut images = metadata.subscribe();
    let forgotten = images.wait_for(|image| lives(image) != lives(&before));
    assert!(timeout(Duration::from_secs(6), forgotten).await.is_err(), "a broker was forgotten");
    etcd[0].restart().unwrap();
    // One that ended while its broker connected again is followed by another one, in the same life.
    let (leases, keys) = eventually("everybody has a lease", || {
        let listed = etcd[0].ctl(&["lease", "list"])?;
        let leases: Vec<String> = listed.lines().skip(1).map(str::to_owned).collect();
        let keys = live_keys(&etcd[0]);
        Ok((leases.len() == 3 && keys.len() == 3).then_some((leases, keys)))
    })
    .unwrap();
    // Not there any more is as good as revoked.
    leases.iter().for_each(|lease| drop(etcd[0].ctl(&["lease", "revoke", lease])));
    let everybody_is_back = |image: &Arc<ClusterImage>| {
        let partitions = &image.topic("wide").unwrap().partitions;
        // Whoever was fenced left the ISR, and here nobody replicates: only leaders come back.
        lives(image) == lives(&before)
            && image.brokers().values().all(|broker| !broker.fenced)
            && partitions.iter().all(|one| one.leader.is_some())
    };
    // The end of a lease takes its key along.
    eventually("all keys are made anew", || {
        let now = live_keys(&etcd[0]);
        Ok((now.len() == 3 && now.iter().all(|key| !keys.contains(key))).then_some(()))
    })
    .unwrap();
    timeout(PATIENCE, images.wait_for(everybody_is_back)).await.unwrap().unwrap();
}

/// Each member of etcd is killed in turn, the leader among them, while brokers agree.
#[tokio::test(flavor = "multi_thread")]
async fn any_one_member_of_etcd_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::cluster(folder.path(), 3).unwrap();
    let members = three_brokers(&etcd, Duration::from_secs(3600)).await;
    let metadata = members[0].0.clone();
    let mut made = 0;
    for gone in &mut etcd {
        gone.kill();
        for _ in 0..5 {
            let name = format!("topic-{made}");
            let placement = Ok(Placement::Spread { partitions: Some(3), replication_factor: Some(3) });
            let topic = NewTopic { name: name.clone(), placement, overrides: BTreeMap::new() };
            let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
            metadata.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
            let (other, _) = &members[made % 3];
            let shown = async |image: &mut tokio::sync::watch::Receiver<Arc<ClusterImage>>| {
                image.wait_for(|image| image.topic(&name).is_some()).await.map(drop)
            };
            timeout(PATIENCE, shown(&mut other.subscribe())).await.unwrap().unwrap();
            made += 1;
        }
        gone.restart().unwrap();
    }
    for (metadata, _) in &members {
        let mut images = metadata.subscribe();
        let all_are_there = images.wait_for(|image| image.topics().len() == made);
        timeout(PATIENCE, all_are_there).await.unwrap().unwrap();
    }
}

/// Whoever waits for all that is there does not wait for what others keep in the same etcd.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_to_the_same_etcd_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path()).unwrap();
    let start = async |id| {
        let store = EtcdStore::connect(&options(etcd.address(), "/varve")).await.unwrap();
        ClusterMetadata::start(Arc::new(store), BrokerId(id), BTreeMap::new()).await.unwrap()
    };
    let (one, other) = (start(1).await, start(2).await);
    etcd.ctl(&["put", "/others/key", "value"]).unwrap();
    let broker = BrokerImage {
        id: BrokerId(1),
        incarnation: uuid::Uuid::new_v4(),
        endpoints: BTreeMap::new(),
        rack: None,
        fenced: false,
        ..BrokerImage::default()
    };
    one.register(broker).await.unwrap();
    etcd.ctl(&["put", "/others/key", "value"]).unwrap();
    let (first, second) = tokio::join!(other.caught_up(), one.caught_up());
    first.unwrap();
    second.unwrap();
    assert!(other.image().brokers().contains_key(&BrokerId(1)));
}

/// A member of etcd that hangs, its connections open: the others are enough, and no broker's lease ends, though all brokers
/// used that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_etcd_that_hangs_costs_no_broker_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::cluster(folder.path(), 3).unwrap();
    const LEASE: Duration = Duration::from_secs(6);
    let _members = three_brokers(&etcd, LEASE).await;
    let before = live_keys(&etcd[1]);
    assert_eq!(before.len(), 3);
    etcd[0].freeze().unwrap();
    // Etcd itself says when so much time is over that a lease which nobody renewed would have ended.
    tokio::task::block_in_place(|| outlive(&etcd[1], 3 * LEASE));
    let after = live_keys(&etcd[1]);
    etcd[0].thaw().unwrap();
    assert_eq!(after, before, "a lease that ends takes its key with it");
}

fn require_users(etcd: &Etcd) {
    for command in
        [["user", "add", "root:secret"].as_slice(), &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        etcd.ctl(command).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_etcd_asks_who_we_are_a_user_and_password_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(folder.path()).unwrap();
    require_users(&etcd);
    let nobody = EtcdStore::connect(&options(etcd.address(), "/varve")).await;
    assert!(matches!(nobody, Err(ConnectError::Refused(StoreError::Unavailable(_)))));
    let given = |password: &str| {
        let credentials = EtcdCredentials { user: "root".into(), password: password.into() };
        EtcdOptions { credentials: Some(credentials), ..options(etcd.address(), "/varve") }
    };
    assert!(matches!(EtcdStore::connect(&given("wrong")).await, Err(ConnectError::Refused(_))));
    let store = EtcdStore::connect(&given("secret")).await.unwrap();
    let mut watch = store.watch("", store.range("").await.unwrap().revision);
    let first = store.transact(put("a", 1)).await.unwrap();
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().revision, first);
    // Its tokens die with etcd; whoever meets that gets a new one.
    for value in 0..3 {
        etcd.restart().unwrap();
        let written = async { while store.transact(put("a", value)).await.is_err() {} };
        timeout(PATIENCE, written).await.unwrap();
        timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    }
}

/// An etcd with users, whose tokens are signed: they outlive it, and end with the next change of users.
fn with_signed_tokens(folder: &std::path::Path) -> Etcd {
    let pair = key();
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (public, private) = (file("public.pem", pair.public_key_pem()), file("private.pem", pair.serialize_pem()));
    let tokens = format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method=ES256");
    let etcd = Etcd::start_with(folder, &[&tokens]).unwrap();
    require_users(&etcd);
    etcd
}

async fn as_root(etcd: &Etcd) -> Arc<EtcdStore> {
    let credentials = EtcdCredentials { user: "root".into(), password: "secret".into() };
    let options = EtcdOptions { credentials: Some(credentials), ..options(etcd.address(), "/varve") };
    EtcdStore::connect(&options).await.unwrap().into()
}

/// A broker in quiet times: it only watches, while its lease is kept without a token. Etcd opens such a watch, and refuses it in the
/// stream.
#[tokio::test(flavor = "multi_thread")]
async fn who_only_watches_gets_a_new_token_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut etcd = with_signed_tokens(folder.path());
    let (watches, writes) = (as_root(&etcd).await, as_root(&etcd).await);
    let mut watch = watches.watch("", watches.range("").await.unwrap().revision);
    writes.transact(put("a", 0)).await.unwrap();
    timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    etcd.ctl(&["--user=root:secret", "user", "add", "ann:secret"]).unwrap();
    etcd.restart().unwrap();
    let written = async { while writes.transact(put("a", 1)).await.is_err() {} };
    timeout(PATIENCE, written).await.unwrap();
    timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_tokens_that_are_older_than_a_change_of_users_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = with_signed_tokens(folder.path());
    let store = as_root(&etcd).await;
    store.transact(put("a", 1)).await.unwrap();
    etcd.ctl(&["--user=root:secret", "user", "add", "ann:secret"]).unwrap();

    store.transact(put("a", 2)).await.unwrap();
    etcd.ctl(&["--user=root:secret", "user", "add", "bob:secret"]).unwrap();
    let mut watch = store.watch("", store.range("").await.unwrap().revision);
    let third = store.transact(put("a", 3)).await.unwrap();
    assert_eq!(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().revision, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (ca_key, server_key, client_key) = (key(), key(), key());
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let mut server = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let both = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    server.extended_key_usages = both.clone();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let mut client = rcgen::CertificateParams::new(vec!["varve".into()]).unwrap();
    client.extended_key_usages = both;
    let client = client.signed_by(&client_key, &issuer).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let arguments = [
        format!("--cert-file={}", file("server.pem", server.pem())),
        format!("--key-file={}", file("server.key", server_key.serialize_pem())),
        format!("--trusted-ca-file={}", file("ca.pem", ca_certificate.pem())),
        "--client-cert-auth".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let etcd = Etcd::start_with(folder.path(), &arguments).unwrap();
    let with = |tls| EtcdOptions { tls: Some(tls), ..options(etcd.address(), "/varve") };
    let ca = Some(ca_certificate.pem().into_bytes());
    let identity = Some((client.pem().into_bytes(), client_key.serialize_pem().into_bytes()));

    let store = EtcdStore::connect(&with(EtcdTls { ca: ca.clone(), identity: identity.clone() })).await.unwrap();
    store.transact(put("a", 1)).await.unwrap();
    assert!(EtcdStore::connect(&with(EtcdTls { ca, identity: None })).await.is_err(), "etcd wants to know who we are");
    assert!(EtcdStore::connect(&with(EtcdTls { ca: None, identity })).await.is_err(), "nobody vouches for this etcd");
}

fn key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().unwrap()
}
