//! A process that dies before or after any one of its writes to the bucket.

use object_store::memory::InMemory;
use varve_metadata::model::PartitionId;

use super::*;
use crate::{
    layout,
    manifest::Limits,
    raw::RawMeta,
    tier::troubled_store::{Fuse, TroubledStore},
};

/// Leaves come early, so that they are among the writes.
const LIMITS: Limits = Limits { inline: 3, keep: 2, leaf: 4 };

/// A disk and a bucket that outlive the processes.
struct Survivors {
    local: Arc<Local>,
    inner: Arc<InMemory>,
    partition: PartitionId,
    /// Every sealed segment that there ever was, by its base offset.
    sealed: BTreeMap<Offset, Vec<u8>>,
}

impl Survivors {
    fn remote(&self, fuse: &Arc<Fuse>) -> Arc<RemotePartition> {
        let store = TroubledStore { inner: Arc::clone(&self.inner), trouble: Arc::clone(fuse) };
        let bucket = Bucket::over(store, BucketOptions { attempts: 1, ..BucketOptions::default() });
        let store = ManifestStore::with_limits(bucket, LIMITS);
        Arc::new(RemotePartition::new(store, self.partition, empty().topic().clone()))
    }

    fn seal(&mut self) {
        self.local.append(10);
        self.local.log.roll().unwrap();
        for segment in self.local.log.sealed_segments(Offset::ZERO).unwrap() {
            self.sealed.insert(segment.base, std::fs::read(&segment.log_path).unwrap());
        }
    }

    /// A new process works until nothing is left to do, or until it dies. Whether it lived.
    async fn process(&self, fuse: Arc<Fuse>) -> bool {
        self.local.epoch.fetch_add(1, Ordering::SeqCst);
        let tended = Tended::new(Arc::clone(&self.local) as Arc<dyn LocalPartition>, self.remote(&fuse));
        let (tools, slot) = (tools(), Slot::default());
        let work = async {
            loop {
                let before = tended.remote.manifest().version();
                tended.look(&tools, &slot, self.local.now()).await.unwrap();
                if tended.remote.manifest().version() == before {
                    return;
                }
            }
        };
        tokio::select! {
            () = work => true,
            () = fuse.burnt.notified() => false,
        }
    }

    /// Every record is where a reader looks for it: in the archive, without a gap and byte for byte, or on the disk.
    async fn check(&self) {
        let remote = self.remote(&Fuse::never());
        let manifest = remote.refresh().await.unwrap();
        let mut next = None;
        for object in remote.objects(&manifest, Offset::ZERO, manifest.end()).await.unwrap() {
            assert_eq!(object.base, next.unwrap_or(object.base));
            let bytes = remote.bucket().get_range(&manifest.key_of(&object), object.range()).await.unwrap();
            assert_eq!(crc32c::crc32c(&bytes), object.crc32c);
            let meta = RawMeta::parse(&bytes, object.bytes).unwrap();
            assert!(bytes[..meta.footer.log_bytes as usize] == self.sealed[&object.base]);
            next = Some(object.end);
        }
        let log = &self.local.log;
        let (local, archived, start) = (log.local_start(), manifest.end(), log.start().0);
        assert!(local <= archived.max(start), "in no tier: {archived} to {local}, the log starts at {start}");
    }
}

#[tokio::test]
async fn a_crash_at_any_write_loses_nothing_and_the_next_process_goes_on() {
    // The archive keeps a few segments, the disk only what is not archived.
    let settings = [("retention.bytes", "60000"), ("retention.ms", "-1"), ("local.retention.ms", "1")];
    let local = Local::new(&settings);
    let mut all = Survivors { local, inner: Arc::default(), partition: partition(), sealed: BTreeMap::new() };
    let mut crashes = 0;
    for _ in 0..8 {
        for _ in 0..2 {
            all.seal();
        }
        all.local.pass(HOUR);
        for write in 0.. {
            let lived = all.process(Fuse::at(write / 2, write % 2 == 0)).await;
            all.check().await;
            if lived {
                break;
            }
            crashes += 1;
        }
    }
    let remote = all.remote(&Fuse::never());
    let manifest = remote.refresh().await.unwrap();
    assert_eq!((manifest.end(), all.local.log.local_start()), (at(160), at(160)));
    assert!(manifest.log_start().0 >= at(90), "expired: {:?}", manifest.log_start());
    assert!(manifest.leaves().count() > 0 && crashes > 50, "{crashes} crashes");
    // A crash leaves no more than it had begun: one object or one leaf.
    let mut named: Vec<String> =
        manifest.leaves().map(|leaf| layout::leaf(all.partition, leaf.id).to_string()).collect();
    for object in remote.objects(&manifest, Offset::ZERO, manifest.end()).await.unwrap() {
        named.push(manifest.key_of(&object).to_string());
    }
    let mut stored = 0;
    for prefix in [layout::RAW, layout::LEAVES] {
        let listed = remote.bucket().list(prefix, None).await.unwrap();
        stored += listed.len();
        named.retain(|key| listed.iter().all(|object| object.key != *key));
    }
    assert_eq!(named, Vec::<String>::new(), "what is named is there");
    assert!(stored <= 16 + 16 + crashes, "{stored} objects after {crashes} crashes");
}
