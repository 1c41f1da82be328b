//! Where Varve is meant to answer otherwise than Apache Kafka. One list: the test takes these differences out of what it
//! found, fails for what is left and for entries that take nothing out, and docs/compatibility.md is printed from it.

use std::collections::BTreeMap;

use varve_tests::differential::Difference;

/// One thing that is meant, as docs/compatibility.md tells it to users, and how the test knows it.
pub(crate) struct Meant {
    /// Where it shows.
    pub(crate) place: &'static str,
    /// What Varve does.
    pub(crate) varve: &'static str,
    /// Why, or what Kafka does instead.
    pub(crate) why: &'static str,
    /// The beginning of a request's name in the scripts, and a part of the line that tells the difference. None where the
    /// scripts have a way round it.
    signs: &'static [(&'static str, &'static str)],
}

/// All of them, in the order of the page.
pub(crate) const MEANT: &[Meant] = &[
    Meant {
        place: "ApiVersions features",
        varve: "`metadata.version`, `transaction.version`, `group.version`, `share.version` and `streams.version`",
        why: "The others stand for requests that are not served.",
        signs: &[("api-versions", "_features")],
    },
    Meant {
        place: "Topics",
        varve: "`remote.storage.enable` (`remote.log.storage.system.enable`) is `true`; `varve.*` settings are listed; ListOffsets -6 and `local.retention.*` \
                act accordingly",
        why: "Every topic is archived.",
        signs: &[
            ("", "[\"varve."),
            ("", "[\"remote.storage.enable\"].value"),
            ("describe-configs-broker-all", "[\"remote.log.storage.system.enable\"]"),
            ("list-offsets--6", ""),
            ("list-offsets-empty--6", ""),
            ("describe-configs-topic-synonyms", "[\"remote.storage.enable\"]"),
            ("incremental-alter-local-larger", ""),
        ],
    },
    Meant {
        place: "`min.insync.replicas`",
        varve: "source is the default",
        why: "Kafka pins it when it formats its storage for eligible leader replicas.",
        signs: &[
            ("", "[\"min.insync.replicas\"].config_source: Kafka 3"),
            ("describe-configs-topic-synonyms", "[\"min.insync.replicas\"]"),
            ("describe-configs-broker-all", "[\"min.insync.replicas\"].synonyms"),
        ],
    },
    Meant {
        place: "`listeners` of a running broker",
        varve: "INVALID_REQUEST for an address that cannot be listened on; another address for a listener that there is holds at \
                once; clients are told of new listeners and addresses at once",
        why: "Kafka takes the first and tells its log, and does the others when it starts anew.",
        signs: &[("incremental-alter-listeners-in-use", "error_code")],
    },
    Meant {
        place: "FindCoordinator before there is anything to coordinate",
        varve: "makes the topic of the coordinators, waits for it, and tells the coordinator",
        why: "Kafka: COORDINATOR_NOT_AVAILABLE, until somebody asks again.",
        signs: &[("find-coordinator-first", "")],
    },
    Meant {
        place: "Produce: records that do not decompress",
        varve: "taken",
        why: "Batches are opaque on their way in.",
        signs: &[("produce-codec-lies", ""), ("produce-codec-zstd-lies", "")],
    },
    Meant {
        place: "Produce: a largest timestamp that is not that of the records",
        varve: "set right where the records are looked at anyway: not in compressed batches",
        why: "Batches are opaque on their way in.",
        signs: &[],
    },
    Meant {
        place: "Produce: LogAppendTime set by the producer",
        varve: "INVALID_TIMESTAMP",
        why: "Kafka takes it, and makes it CreateTime.",
        signs: &[("produce-log-append-time", "")],
    },
    Meant {
        place: "Fetch: size limits",
        varve: "whole batches",
        why: "Kafka may add the beginning of one more, which readers pass over.",
        signs: &[],
    },
    Meant {
        place: "StreamsGroupHeartbeat of a member that has fewer tasks than it was given",
        varve: "tells all its tasks again",
        why: "The answer that gave them may have been lost. In Kafka nobody works on them until the next rebalance.",
        signs: &[("streams-heartbeat-owns-less", "_tasks")],
    },
    Meant {
        place: "ConsumerGroupHeartbeat with a pattern that is none",
        varve: "INVALID_REGULAR_EXPRESSION as in Kafka, in other words",
        why: "The library that compiles patterns has its own. The syntax is that of Rust's `regex`, which differs from RE2/J \
              in rarely used corners.",
        signs: &[("consumer-heartbeat-pattern", ".error_message")],
    },
    Meant {
        place: "DescribeLogDirs",
        varve: "who names no partitions gets one more directory, `remote:` and the object store's URL, with the size of \
                what is archived",
        why: "Kafka does not tell it.",
        signs: &[],
    },
    Meant {
        place: "Broker settings",
        varve: "unknown names and those read only at start are refused, and the latter shown as read-only: beside those of Kafka, \
                what names Java classes. `node.id` has a default, `log.dir` none",
        why: "Nothing is accepted that has no effect; no Java classes are loaded. Data are in `varve.data.dir` unless told \
              otherwise.",
        signs: &[
            ("describe-configs-broker-1", "[\"node.id\"].synonyms"),
            ("describe-configs-broker-all", "[\"node.id\"].synonyms"),
            ("describe-configs-broker-all", "[\"log.dir\"]"),
            ("describe-configs-broker-all", "[\"config.providers\"].read_only"),
            ("describe-configs-broker-all", "[\"metric.reporters\"].read_only"),
            ("describe-configs-broker-all", "[\"principal.builder.class\"].read_only"),
            ("describe-configs-broker-all", "[\"ssl.engine.factory.class\"].read_only"),
            ("incremental-alter-broker-unknown", ""),
        ],
    },
    Meant {
        place: "IncrementalAlterConfigs of how many threads there are, by more than twice or half, and of listeners and their limits",
        varve: "refused as in Kafka, in its words for the reason",
        why: "Kafka wraps them in the names of its classes.",
        signs: &[
            ("incremental-alter-broker-threads-", ".error_message"),
            ("incremental-alter-broker-rate-", ".error_message"),
            ("incremental-alter-broker-connections-", ".error_message"),
            ("incremental-alter-listeners-", ".error_message"),
        ],
    },
    Meant {
        place: "AlterClientQuotas",
        varve: "a quota that is no number, or an infinite one where fractions are allowed: INVALID_REQUEST",
        why: "Kafka takes them, and then never throttles; no quota means the same.",
        signs: &[],
    },
    Meant {
        place: "UnregisterBroker of a broker that runs",
        varve: "INVALID_REQUEST",
        why: "Kafka forgets it, and it serves on without anybody finding it.",
        signs: &[],
    },
    Meant {
        place: "DescribeQuorum",
        varve: "the node that decides is the only voter, others are observers; the high watermark is the revision of \
                cluster state",
        why: "There is no Raft log.",
        signs: &[
            ("quorum", ".nodes[0].listeners"),
            ("quorum", ".topics[0].partitions[0].current_voters[0].log_end_offset"),
            ("quorum", ".topics[0].partitions[0].high_watermark"),
            ("quorum", ".topics[0].partitions[0].leader_epoch"),
        ],
    },
    Meant {
        place: "GetTelemetrySubscriptions, PushTelemetry",
        varve: "served; what clients push is at `/metrics`",
        why: "Kafka serves them only with a reporter of metrics, which is a Java class.",
        signs: &[("telemetry-get", ".subscription_id"), ("api-versions-of-71", ""), ("api-versions-of-72", "")],
    },
    Meant {
        place: "JoinGroup of a consumer whose subscription cannot be read",
        varve: "like any other",
        why: "Kafka never answers it.",
        signs: &[],
    },
    Meant {
        place: "JoinGroup that is refused",
        varve: "leaves no group behind",
        why: "Kafka lists it as an empty group for a while.",
        signs: &[("list-groups", "[\"g\"]")],
    },
    Meant {
        place: "Text that is not UTF-8",
        varve: "the connection is closed",
        why: "Kafka replaces what it cannot read.",
        signs: &[("text-no-utf8", "")],
    },
    Meant {
        place: "Lengths and counts below -1",
        varve: "the connection is closed",
        why: "Kafka takes every negative one for -1, which stands for nothing.",
        signs: &[],
    },
    Meant {
        place: "Cluster operations that are denied",
        varve: "`Cluster authorization failed.`",
        why: "Kafka's message shows the request's insides.",
        signs: &[],
    },
    Meant {
        place: "CreateAcls, DeleteAcls, DescribeAcls with UNKNOWN (0) as a type or operation",
        varve: "INVALID_REQUEST, or nothing is found",
        why: "Kafka closes the connection.",
        signs: &[],
    },
    Meant {
        place: "Rules for a host",
        varve: "any spelling of an address matches",
        why: "Kafka compares the text with the address as Java writes it.",
        signs: &[],
    },
    Meant {
        place: "AddPartitionsToTxn of a broker without transactions",
        varve: "an answer without any",
        why: "Kafka never answers it.",
        signs: &[("txn-broker-add-none", "")],
    },
    Meant {
        place: "ListTransactions by a pattern",
        varve: "in the syntax of Rust's `regex`; what it does not know (look-around, back references), or a pattern larger \
                than 1 MiB once compiled: INVALID_REGULAR_EXPRESSION",
        why: "Patterns of clients run in linear time.",
        signs: &[],
    },
    Meant {
        place: "A transaction's marker for a partition that knows a newer epoch of the producer",
        varve: "the transaction completes without it",
        why: "In Kafka it waits until its coordinator is loaded anew, and then again.",
        signs: &[],
    },
    Meant {
        place: "InitProducerId of a producer whose epochs are used up and which did not hear its last answer",
        varve: "that answer",
        why: "Kafka: UNKNOWN_SERVER_ERROR.",
        signs: &[],
    },
    Meant {
        place: "EndTxn 5 of a producer that was fenced, after an end by a producer of an older version in the next epoch",
        varve: "PRODUCER_FENCED",
        why: "Kafka takes it for the same end asked for again, says that it is done, and lets both go on in one epoch.",
        signs: &[("txn-end-other-generation", "")],
    },
    Meant {
        place: "ShareAcknowledge, ShareFetch: what is said beside the code of an acknowledgement that is refused",
        varve: "INVALID_RECORD_STATE or INVALID_REQUEST as in Kafka, in other words",
        why: "Kafka tells how it looked for the records.",
        signs: &[("share-acknowledge-", ".error_message")],
    },
    Meant {
        place: "ShareFetch, ShareAcknowledge in an epoch below -1",
        varve: "INVALID_SHARE_SESSION_EPOCH",
        why: "Kafka: SHARE_SESSION_NOT_FOUND where there is no session either.",
        signs: &[("share-fetch-no-session--2", ""), ("share-acknowledge-no-session--2", "")],
    },
    Meant {
        place: "ShareFetch of a topic that does not exist",
        varve: "UNKNOWN_TOPIC_ID for its partitions",
        why: "Kafka: UNKNOWN_SERVER_ERROR for the whole request.",
        signs: &[("share-fetch-unknown-topic", "")],
    },
    Meant {
        place: "ShareFetch, ShareAcknowledge while the state of the group cannot be reached",
        varve: "OFFSET_NOT_AVAILABLE for what is to be read, at which readers ask again, and COORDINATOR_NOT_AVAILABLE for what is \
                said of records",
        why: "Kafka: COORDINATOR_NOT_AVAILABLE, at which its own reader fails, or UNKNOWN_SERVER_ERROR, for both.",
        signs: &[],
    },
    Meant {
        place: "ShareFetch above a quota",
        varve: "its records, and how long to wait afterwards",
        why: "Kafka has them locked by then, and answers without them.",
        signs: &[],
    },
    Meant {
        place: "DescribeShareGroupOffsets without a group or partitions, or of a partition that does not exist",
        varve: "that there is no offset",
        why: "Kafka: UNKNOWN_SERVER_ERROR, or no answer at all.",
        signs: &[],
    },
    Meant {
        place: "Order",
        varve: "that of the request, or of the fetch session",
        why: "Kafka's is that of its hash maps.",
        signs: &[("fetch-session-errs", "")],
    },
];

/// Kafka collects these answers in hash maps: their order means nothing.
const UNORDERED: &[&str] = &[
    "create-",
    "join-",
    "delete-",
    "metadata-",
    "produce-",
    "describe-",
    "alter-",
    "incremental-",
    "list-",
    "fetch-",
    "txn-",
    "offset-delete-",
    "consumer-",
    "share-",
];

/// Removes what is meant; returns the signs that removed nothing. One that nothing needs would hide the next bug of that
/// name.
pub(crate) fn take_meant(found: &mut Vec<Difference>) -> Vec<(&'static str, &'static str)> {
    let signs: Vec<_> = MEANT.iter().flat_map(|meant| meant.signs).collect();
    let mut used = vec![false; signs.len()];
    for difference in found.iter_mut() {
        let name = &difference.name;
        difference.lines.retain(|line| {
            if line.starts_with("in another order") && UNORDERED.iter().any(|part| name.starts_with(part)) {
                return false;
            }
            let mut is_meant = false;
            for ((start, part), used) in signs.iter().zip(&mut used) {
                let fits = name.starts_with(start) && line.contains(part);
                *used |= fits;
                is_meant |= fits;
            }
            !is_meant
        });
    }
    found.retain(|difference| !difference.lines.is_empty());
    signs.into_iter().zip(used).filter(|(_, used)| !used).map(|(sign, _)| *sign).collect()
}

/// The differences, one paragraph for all versions in which they are the same.
pub(crate) fn listed(found: &[Difference]) -> String {
    let mut versions: BTreeMap<(&str, &[String]), Vec<i16>> = BTreeMap::new();
    for difference in found {
        versions.entry((&difference.name, &difference.lines)).or_default().extend(difference.version);
    }
    let paragraphs = versions.iter().map(|((name, lines), versions)| {
        let lines = lines.iter().map(|line| line.chars().take(700).collect::<String>());
        format!("{name} {versions:?}\n    {}", lines.collect::<Vec<_>>().join("\n    "))
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}
