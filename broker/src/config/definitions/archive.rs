//! The object store, what goes there, and how it is read.

use super::*;

const MANIFESTS: &str =
    "what is archived stands in manifests in the object store itself, not in a topic of this cluster";
const INDEXES: &str = "an archived object carries its own indexes; varve.cache.memory.bytes and varve.cache.disk.bytes \
                       bound what is kept of them";
const ONE_POOL: &str = "archive work is not bound to pools of threads by kind";
const NO_WINDOW: &str = "rates are held by a token bucket, not by windows of samples";
const NO_PLUGIN: &str =
    "tiered storage is built in and loads no plugin; varve.object.store.url says where the archive is";

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(unset(
        "varve.object.store.url",
        Kind::Text,
        "Where the archive is: file:///directory, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or \
         memory:// for tests. If unset, the directory archive in varve.data.dir. A directory that is named here is made by the \
         first start of a node that keeps its metadata itself; otherwise it has to be there.",
    )),
    unset(
        "varve.object.store.endpoint",
        Kind::Text,
        "URL of the object store's API, http:// or https://, for stores that speak S3 but are not AWS.",
    ),
    unset(
        "varve.object.store.region",
        Kind::Text,
        "Region of the bucket. If unset, as the environment says in the way of AWS's tools. Credentials come from \
         the AWS chain too: environment, profile, web identity, container, instance.",
    ),
    unset(
        "varve.object.store.path.style",
        Kind::Bool,
        "Whether the bucket's name goes into the path instead of the host name; if unset, exactly with an endpoint.",
    ),
    low(def(
        "varve.object.store.request.attempts",
        POSITIVE_INT,
        "6",
        "How often one request to the object store is tried, the first time included, with growing random pauses.",
    )),
    low(def(
        "varve.object.store.request.timeout.ms",
        POSITIVE_LONG,
        "20000",
        "The longest that one such try may take, besides the time for moving its bytes, in milliseconds.",
    )),
    high(def(
        "remote.log.storage.system.enable",
        Kind::Bool,
        "true",
        "Default of remote.storage.enable. On by default, unlike in Kafka; false keeps all topics on local disks only.",
    )),
    def("varve.archive.lag.ms", LIMIT, "900000", "Default of the topic setting varve.archive.lag.ms.").dynamic(),
    def(
        "varve.backup.lag.ms",
        LIMIT,
        "60000",
        "The longest until committed offsets and the rest of what coordinators keep in internal topics is in the object \
         store, in milliseconds, so that varve restore brings it back. Topics, settings, ACLs and users follow within \
         seconds. -1 copies neither.",
    ),
    def(
        "varve.archive.format",
        Kind::Enum(&["parquet", "raw"]),
        "parquet",
        "Default of the topic setting varve.archive.format.",
    )
    .dynamic(),
    def(
        "varve.archive.fetch.compression",
        Kind::Enum(&["none", "producer"]),
        "none",
        "Default of the topic setting varve.archive.fetch.compression.",
    )
    .dynamic(),
    def(
        "varve.archive.grace.ms",
        Kind::Long { min: 10_000, max: i64::MAX },
        "3600000",
        "How long an object outlives its removal from the manifest, so that readers with an older manifest can \
         finish, in milliseconds. Objects that no manifest names go after it too, so what is uploaded must be published \
         within half of it: ten seconds are the least.",
    ),
    unset(
        "varve.local.max.bytes",
        POSITIVE_LONG,
        "The most bytes of local log that all archived partitions together may have. Near it, archived records leave \
         the local disk before local.retention lets them; where the archive does not keep up, producers are slowed \
         down from four fifths of it on and refused (KAFKA_STORAGE_ERROR, which they retry) at it. If unset, the disk \
         is the limit.",
    ),
    def("log.local.retention.ms", Kind::Long { min: -2, max: i64::MAX }, "-2", "Default of local.retention.ms.")
        .dynamic(),
    def("log.local.retention.bytes", Kind::Long { min: -2, max: i64::MAX }, "-2", "Default of local.retention.bytes.")
        .dynamic(),
    // Upload
    low(def(
        "remote.log.manager.task.interval.ms",
        POSITIVE_LONG,
        "30000",
        "How often partitions are looked at for segments to upload or to drop, in milliseconds.",
    )),
    def(
        "remote.log.manager.copier.thread.pool.size",
        POSITIVE_INT,
        "10",
        "The most segments that are uploaded at the same time.",
    )
    .dynamic(),
    def(
        "remote.log.manager.copy.max.bytes.per.second",
        POSITIVE_LONG,
        LONG_MAX,
        "The most bytes that are uploaded per second.",
    )
    .dynamic(),
    low(def("remote.log.manager.copy.quota.window.num", POSITIVE_INT, "11", "Samples kept for the upload rate."))
        .no_effect(NO_WINDOW),
    low(def(
        "remote.log.manager.copy.quota.window.size.seconds",
        POSITIVE_INT,
        "1",
        "The time span of one such sample, in seconds.",
    ))
    .no_effect(NO_WINDOW),
    low(def(
        "remote.log.manager.expiration.thread.pool.size",
        POSITIVE_INT,
        "10",
        "Threads that expire archived segments.",
    )
    .dynamic())
    .no_effect(ONE_POOL),
    low(def(
        "remote.log.manager.follower.thread.pool.size",
        POSITIVE_INT,
        "2",
        "Threads that follow the archive for partitions led elsewhere.",
    )
    .dynamic())
    .no_effect(ONE_POOL),
    low(def("remote.log.manager.thread.pool.size", POSITIVE_INT, "2", "Threads of the remote log manager."))
        .no_effect(ONE_POOL),
    low(def(
        "remote.log.manager.task.retry.backoff.ms",
        POSITIVE_LONG,
        "500",
        "First pause after a failed upload, in milliseconds.",
    ))
    .no_effect("the object store client has its own growing, jittered pauses")
    .internal(),
    low(def(
        "remote.log.manager.task.retry.backoff.max.ms",
        POSITIVE_LONG,
        "30000",
        "Longest pause after failed uploads, in milliseconds.",
    ))
    .no_effect("the object store client has its own growing, jittered pauses")
    .internal(),
    low(def(
        "remote.log.manager.task.retry.jitter",
        Kind::Double { min: 0.0, max: 0.5 },
        "0.2",
        "Random part of such a pause.",
    ))
    .no_effect("the object store client has its own growing, jittered pauses")
    .internal(),
    // Reading
    high(def(
        "varve.cache.memory.bytes",
        NATURAL_LONG,
        "67108864",
        "Memory for what was read from the archive, in bytes.",
    )),
    high(def(
        "varve.cache.disk.bytes",
        LIMIT,
        "-1",
        "Disk for what was read from the archive, in bytes, in the directory cache of varve.data.dir; 0 uses none. \
         -1 uses none if the archive is a local directory or in memory, else 4 GiB.",
    )),
    def(
        "varve.cache.read.ahead.bytes",
        NATURAL_LONG,
        "16777216",
        "The most that is read ahead for one partition that is read in order, in bytes.",
    ),
    def("remote.log.reader.threads", POSITIVE_INT, "10", "The most reads from the archive at the same time.").dynamic(),
    def(
        "remote.log.reader.max.pending.tasks",
        POSITIVE_INT,
        "100",
        "The most reads from the archive that may wait their turn; further ones are told to come again.",
    ),
    def(
        "remote.log.manager.fetch.max.bytes.per.second",
        POSITIVE_LONG,
        LONG_MAX,
        "The most bytes that are read from the archive per second.",
    )
    .dynamic(),
    low(def("remote.log.manager.fetch.quota.window.num", POSITIVE_INT, "11", "Samples kept for the rate of reads."))
        .no_effect(NO_WINDOW),
    low(def(
        "remote.log.manager.fetch.quota.window.size.seconds",
        POSITIVE_INT,
        "1",
        "The time span of one such sample, in seconds.",
    ))
    .no_effect(NO_WINDOW),
    def(
        "remote.fetch.max.wait.ms",
        POSITIVE_INT,
        "500",
        "The longest that a Fetch waits for the archive before it answers with what it has, in milliseconds; \
         what arrives later is cached.",
    )
    .dynamic(),
    def(
        "remote.list.offsets.request.timeout.ms",
        POSITIVE_LONG,
        "30000",
        "The longest that ListOffsets waits for the archive, in milliseconds.",
    )
    .dynamic(),
    low(def(
        "remote.log.index.file.cache.total.size.bytes",
        POSITIVE_LONG,
        "1073741824",
        "Disk for index files fetched from the archive, in bytes.",
    )
    .dynamic())
    .no_effect(INDEXES),
    low(def(
        "remote.log.index.file.cache.ttl.ms",
        LIMIT,
        "900000",
        "How long such an index file is kept unused, in milliseconds.",
    ))
    .no_effect(INDEXES)
    .internal(),
    // Compactor
    def(
        "varve.compactor.interval.ms",
        POSITIVE_LONG,
        "30000",
        "How often partitions are looked at for objects to rewrite, merge or remove, in milliseconds.",
    ),
    def("varve.compactor.threads", POSITIVE_INT, "1", "Partitions that are rewritten at the same time."),
    def(
        "varve.compactor.memory.bytes",
        Kind::Long { min: 16_777_216, max: i64::MAX },
        "268435456",
        "The most memory for the keys of topics that are compacted by key, in bytes, over all threads. Keys that have no \
         room go through files without a name below varve.data.dir, 24 bytes per record, if a twentieth of that disk \
         stays free.",
    ),
    def(
        "varve.compactor.rate.bytes.per.second",
        POSITIVE_LONG,
        LONG_MAX,
        "The most bytes that the compactor reads from the archive per second.",
    ),
    def(
        "varve.compactor.object.bytes",
        Kind::Long { min: 1_048_576, max: i64::MAX },
        "268435456",
        "Raw log in one Parquet object, in bytes: smaller objects are merged up to this size.",
    ),
    low(def(
        "varve.compactor.row.group.bytes",
        Kind::Long { min: 65_536, max: i64::MAX },
        "16777216",
        "Raw log in one row group of a Parquet object, in bytes.",
    )),
    // Kafka's plugin
    unset("remote.log.storage.manager.class.name", Kind::Text, "The Java class that keeps remote segments.")
        .refused(NO_PLUGIN),
    unset("remote.log.storage.manager.class.path", Kind::Text, "Where that class is found.").no_effect(NO_PLUGIN),
    def("remote.log.storage.manager.impl.prefix", Kind::Text, "rsm.config.", "The prefix of that class's settings.")
        .no_effect(NO_PLUGIN),
    def(
        "remote.log.metadata.manager.class.name",
        Kind::Text,
        "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
        "The Java class that knows the remote segments.",
    )
    .no_effect(MANIFESTS),
    unset("remote.log.metadata.manager.class.path", Kind::Text, "Where that class is found.").no_effect(MANIFESTS),
    def("remote.log.metadata.manager.impl.prefix", Kind::Text, "rlmm.config.", "The prefix of that class's settings.")
        .no_effect(MANIFESTS),
    unset("remote.log.metadata.manager.listener.name", Kind::Text, "The listener that that class connects to.")
        .no_effect(MANIFESTS),
    low(def(
        "remote.log.metadata.custom.metadata.max.bytes",
        NATURAL_INT,
        "128",
        "The most bytes that a storage class may attach to a segment.",
    ))
    .no_effect(MANIFESTS),
];
