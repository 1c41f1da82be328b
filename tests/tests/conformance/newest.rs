//! Versions that `kafka-protocol` does not know, byte by byte: OffsetCommit 10, OffsetFetch 10, DescribeLogDirs 5; and
//! DescribeLogDirs before that.

use anyhow::{Context, Result};
use bytes::{BufMut, Bytes};
use kafka_protocol::{
    messages::{
        DescribeLogDirsRequest, OffsetCommitRequest, OffsetFetchRequest,
        describe_log_dirs_request::DescribableLogDirTopic,
    },
    protocol::Request,
};
use serde_json::Value;
use uuid::Uuid;
use varve_tests::differential::{Answer, Pair, Side, frame, raw_frame};

use super::{
    data::{WHEN, batch, write},
    groups::await_coordinator,
    request::{NOBODYS_ID, id_of, topic, versions},
    topics::{make, new},
};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    await_coordinator(pair)?;
    make(pair, new("newest", 2, 1))?;
    offsets(pair)?;
    log_dirs(pair)
}

/// A length or count, one more than it is; short ones only.
fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = length + 1;
    if length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        out.put_u8((length >> 7) as u8);
    } else {
        out.put_u8(length as u8);
    }
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.put_u8(0),
        Some(text) => {
            put_length(out, text.len());
            out.put_slice(text.as_bytes());
        }
    }
}

const NO_TAGS: u8 = 0;

struct Commit<'a> {
    group: &'a str,
    generation: i32,
    member: &'a str,
    instance: Option<&'a str>,
    topic: Uuid,
    index: i32,
    offset: i64,
    metadata: Option<&'a str>,
}

impl Commit<'_> {
    fn frame(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        put_text(&mut body, Some(self.group));
        body.put_i32(self.generation);
        put_text(&mut body, Some(self.member));
        put_text(&mut body, self.instance);
        put_length(&mut body, 1);
        body.put_slice(self.topic.as_bytes());
        put_length(&mut body, 1);
        body.put_i32(self.index);
        body.put_i64(self.offset);
        body.put_i32(-1); // leader epoch
        put_text(&mut body, self.metadata);
        body.put_slice(&[NO_TAGS; 3]);
        raw_frame(OffsetCommitRequest::KEY, 10, &body)
    }
}

/// A group and the topics of it, or all.
type OfGroup<'a> = (&'a str, Option<&'a [(Uuid, &'a [i32])]>);

fn fetch(groups: &[OfGroup<'_>]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    put_length(&mut body, groups.len());
    for (group, topics) in groups {
        put_text(&mut body, Some(group));
        put_text(&mut body, None); // member
        body.put_i32(-1); // its epoch
        match topics {
            None => body.put_u8(0),
            Some(topics) => {
                put_length(&mut body, topics.len());
                for (id, indexes) in *topics {
                    body.put_slice(id.as_bytes());
                    put_length(&mut body, indexes.len());
                    indexes.iter().for_each(|index| body.put_i32(*index));
                    body.put_u8(NO_TAGS);
                }
            }
        }
        body.put_u8(NO_TAGS);
    }
    body.put_u8(0); // stable offsets only
    body.put_u8(NO_TAGS);
    raw_frame(OffsetFetchRequest::KEY, 10, &body)
}

fn offsets(pair: &mut Pair) -> Result<()> {
    let large = "m".repeat(4_097);
    let commit = |topic: Uuid| Commit {
        group: "byid",
        generation: -1,
        member: "",
        instance: None,
        topic,
        index: 0,
        offset: 42,
        metadata: Some("note"),
    };
    type Change = fn(&mut Commit<'_>);
    let changes: [(&str, Change); 9] = [
        ("simple", |_| ()),
        ("null-metadata", |commit| commit.metadata = None),
        ("unknown-id", |commit| commit.topic = NOBODYS_ID),
        ("zero-id", |commit| commit.topic = Uuid::nil()),
        ("unknown-partition", |commit| commit.index = 9),
        ("no-group", |commit| commit.group = ""),
        ("unknown-member", |commit| commit.member = "nobody"),
        ("generation", |commit| commit.generation = 3),
        ("generation-of-nobody", |commit| (commit.group, commit.generation) = ("nobody", 3)),
    ];
    for (label, change) in changes {
        pair.ask_bytes(&format!("commit-10-{label}"), |side| {
            let mut commit = commit(id_of(side, "newest"));
            change(&mut commit);
            commit.frame()
        })?;
    }
    pair.ask_bytes("commit-10-large-metadata", |side| {
        Commit { metadata: Some(&large), ..commit(id_of(side, "newest")) }.frame()
    })?;
    pair.ask_bytes("commit-10-instance", |side| {
        Commit { instance: Some("one"), ..commit(id_of(side, "newest")) }.frame()
    })?;
    let of = |side: &Side| id_of(side, "newest");
    pair.ask_bytes("offset-fetch-10", |side| fetch(&[("byid", Some(&[(of(side), &[0, 1])]))]))?;
    pair.ask_bytes("offset-fetch-10-all", |_| fetch(&[("byid", None)]))?;
    pair.ask_bytes("offset-fetch-10-none", |_| fetch(&[("byid", Some(&[]))]))?;
    pair.ask_bytes("offset-fetch-10-no-partitions", |side| fetch(&[("byid", Some(&[(of(side), &[])]))]))?;
    pair.ask_bytes("offset-fetch-10-unknown-id", |_| fetch(&[("byid", Some(&[(NOBODYS_ID, &[0])]))]))?;
    pair.ask_bytes("offset-fetch-10-zero-id", |_| fetch(&[("byid", Some(&[(Uuid::nil(), &[0])]))]))?;
    pair.ask_bytes("offset-fetch-10-unknown-group", |side| fetch(&[("nobody", Some(&[(of(side), &[0])]))]))?;
    pair.ask_bytes("offset-fetch-10-no-group", |side| fetch(&[("", Some(&[(of(side), &[0])]))]))?;
    pair.ask_bytes("offset-fetch-10-groups", |side| fetch(&[("byid", None), ("nobody", Some(&[(of(side), &[0])]))]))?;
    pair.ask_bytes("offset-fetch-10-no-groups", |_| fetch(&[]))
}

fn log_dirs(pair: &mut Pair) -> Result<()> {
    let one = batch(&[(WHEN, Some("k"), "v")])?;
    pair.ask("produce-newest", &[12], |v, side| write(v, side, &[("newest", 0, Some(&one))], -1))?;
    let ask = |topics: Option<&[(&str, &[i32])]>| {
        let topics = topics.map(|topics| {
            let each = topics.iter().map(|(name, indexes)| {
                DescribableLogDirTopic::default().with_topic(topic(name)).with_partitions(indexes.to_vec())
            });
            each.collect()
        });
        DescribeLogDirsRequest::default().with_topics(topics)
    };
    for (label, topics) in [
        ("some", Some(&[("newest", &[0, 1][..])][..])),
        ("unknown", Some(&[("nobody", &[0]), ("a b", &[0]), ("", &[0])])),
        ("unknown-partition", Some(&[("newest", &[1, 7, -1])])),
        ("no-partitions", Some(&[("newest", &[])])),
        ("partition-twice", Some(&[("newest", &[0, 0])])),
        ("none", Some(&[])),
    ] {
        let name = format!("describe-log-dirs-{label}");
        let answers = pair.ask(&name, &versions(1, 4), |_, _| ask(topics))?;
        if label == "some" {
            // Kafka's order is that of a hash map, so that its bytes tell nothing.
            continue;
        }
        // Version 5 asks as version 4 does.
        let mut found = Vec::new();
        for (side, known) in pair.sides().into_iter().zip(&answers) {
            let mut frame = frame(4, &ask(topics))?;
            frame[7] = 5;
            side.send(0, &frame)?;
            found.push(match side.receive(0)? {
                Err(missing) => missing,
                Ok(answer) => Answer::Tree(masked(&answer, known)?),
            });
        }
        let [kafka, varve] = [found.remove(0), found.remove(0)];
        pair.compared.insert((DescribeLogDirsRequest::KEY, 5));
        pair.compare(&name, Some(5), kafka, varve);
    }
    Ok(())
}

/// The bytes, but for the directory and the sizes of its volume, which `known` tells: they stand together at the end.
/// The archive, which Varve tells as one more directory, is taken out.
fn masked(answer: &Bytes, known: &Value) -> Result<Value> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let named = |at: usize| -> Option<String> {
        let mut name = Vec::new();
        put_text(&mut name, Some(known["results"][at]["log_dir"].as_str()?));
        Some(hex(&name))
    };
    let total = known["results"][0]["total_bytes"].as_i64().context("a size")?;
    let mut answer = hex(answer);
    if let Some(archive) = named(1) {
        let at = answer.find(&archive).context("the archive")?;
        // Its error code, and all behind it but the end of the answer; one less are counted.
        answer.replace_range(at - 4..answer.len() - 2, "");
        let count = 2 * (4 + 1 + 4 + 2);
        answer.replace_range(count..count + 2, "02");
    }
    let answer = answer.replace(&named(0).context("a directory")?, "<directory>");
    let (front, behind) = answer.split_once(&hex(&total.to_be_bytes())).context("the size of the volume")?;
    Ok(format!("{front}<bytes>{}", behind.get(16..).unwrap_or_default()).into())
}
