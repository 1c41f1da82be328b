//! ShareFetch and ShareAcknowledge.

use anyhow::Result;
use kafka_protocol::messages::{
    ShareAcknowledgeRequest, ShareFetchRequest, share_acknowledge_request as acknowledge, share_fetch_request as fetch,
};
use uuid::Uuid;
use varve_tests::differential::{Pair, Side};

use super::{FIRST, GROUP, SECOND, newer, shared};
use crate::request::{NOBODYS_ID, group, text};

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;

/// Offsets, and what is said of them.
type Said<'a> = (i64, i64, &'a [i8]);

pub(super) fn script(pair: &mut Pair) -> Result<()> {
    sessions(pair)?;
    acquire(pair)?;
    acknowledgements(pair)?;
    newest(pair)?;
    the_end(pair)
}

/// A fetch that waits for nothing.
fn fetched(topic: Uuid, member: &str, epoch: i32, partitions: &[(i32, &[Said<'_>])]) -> ShareFetchRequest {
    let partitions = partitions.iter().map(|(index, said)| {
        let said = said.iter().map(|(first, last, types)| {
            fetch::AcknowledgementBatch::default()
                .with_first_offset(*first)
                .with_last_offset(*last)
                .with_acknowledge_types(types.to_vec())
        });
        fetch::FetchPartition::default().with_partition_index(*index).with_acknowledgement_batches(said.collect())
    });
    let partitions: Vec<_> = partitions.collect();
    let topics = match partitions.is_empty() {
        true => Vec::new(),
        false => vec![fetch::FetchTopic::default().with_topic_id(topic).with_partitions(partitions)],
    };
    ShareFetchRequest::default()
        .with_group_id(Some(group(GROUP)))
        .with_member_id(Some(text(member)))
        .with_share_session_epoch(epoch)
        .with_max_bytes(1 << 20)
        .with_max_records(500)
        .with_batch_size(500)
        .with_topics(topics)
}

/// The same for records that somebody else is about to give back.
fn waiting(request: ShareFetchRequest) -> ShareFetchRequest {
    request.with_max_wait_ms(10_000).with_min_bytes(1)
}

fn acknowledged(topic: Uuid, member: &str, epoch: i32, index: i32, said: &[Said<'_>]) -> ShareAcknowledgeRequest {
    let said = said.iter().map(|(first, last, types)| {
        acknowledge::AcknowledgementBatch::default()
            .with_first_offset(*first)
            .with_last_offset(*last)
            .with_acknowledge_types(types.to_vec())
    });
    let partition = acknowledge::AcknowledgePartition::default()
        .with_partition_index(index)
        .with_acknowledgement_batches(said.collect());
    let topic = acknowledge::AcknowledgeTopic::default().with_topic_id(topic).with_partitions(vec![partition]);
    ShareAcknowledgeRequest::default()
        .with_group_id(Some(group(GROUP)))
        .with_member_id(Some(text(member)))
        .with_share_session_epoch(epoch)
        .with_topics(vec![topic])
}

fn sessions(pair: &mut Pair) -> Result<()> {
    for epoch in [-1, 1, 7, -2] {
        pair.ask(&format!("share-fetch-no-session-{epoch}"), &[1], |_, side| {
            fetched(shared(side), FIRST, epoch, &[(0, &[])])
        })?;
        pair.ask(&format!("share-acknowledge-no-session-{epoch}"), &[1], |_, side| {
            acknowledged(shared(side), FIRST, epoch, 0, &[(0, 0, &[ACCEPT])])
        })?;
    }
    pair.ask("share-acknowledge-no-session-0", &[1], |_, side| {
        acknowledged(shared(side), FIRST, 0, 0, &[(0, 0, &[ACCEPT])])
    })?;
    let long = "m".repeat(37);
    for (name, member) in [("no-member", Some("")), ("null-member", None), ("long-member", Some(&long[..]))] {
        pair.ask(&format!("share-fetch-{name}"), &[1], |_, side| {
            fetched(shared(side), FIRST, 0, &[(0, &[])]).with_member_id(member.map(text))
        })?;
        pair.ask(&format!("share-acknowledge-{name}"), &[1], |_, side| {
            acknowledged(shared(side), FIRST, 0, 0, &[]).with_member_id(member.map(text))
        })?;
    }
    pair.ask("share-fetch-null-group", &[1], |_, side| {
        fetched(shared(side), FIRST, 0, &[(0, &[])]).with_group_id(None)
    })?;
    pair.ask("share-fetch-said-at-once", &[1], |_, side| {
        fetched(shared(side), FIRST, 0, &[(0, &[(0, 0, &[ACCEPT])])])
    })?;
    pair.ask("share-fetch-unknown-topic", &[1], |_, _| fetched(NOBODYS_ID, SECOND, 0, &[(0, &[])]))?;
    pair.ask("share-fetch-unknown-partition", &[1], |_, side| fetched(shared(side), SECOND, 0, &[(9, &[])]))?;
    pair.ask("share-fetch-closes", &[1], |_, side| fetched(shared(side), SECOND, -1, &[]))?;
    Ok(())
}

/// The first member acquires everything.
fn acquire(pair: &mut Pair) -> Result<()> {
    for (index, records) in [(0, 4), (1, 3)] {
        pair.until(
            1,
            |_, side| waiting(fetched(shared(side), FIRST, 0, &[(index, &[])])),
            |answer| {
                let acquired = answer["responses"][0]["partitions"][0]["acquired_records"].as_array();
                let count = |batch: &serde_json::Value| {
                    Some(batch["last_offset"].as_i64()? - batch["first_offset"].as_i64()? + 1)
                };
                acquired.into_iter().flatten().filter_map(count).sum::<i64>() == records
            },
        )?;
    }
    let both = |_, side: &Side| fetched(shared(side), FIRST, 0, &[(0, &[]), (1, &[])]);
    // Kafka leaves a partition out while the fetch before still holds it, for a moment after that was answered.
    pair.until(1, both, |answer| answer["responses"][0]["partitions"].as_array().is_some_and(|all| all.len() == 2))?;
    pair.ask("share-fetch-all-taken", &[1], both)?;
    pair.ask("share-fetch-in-session", &[1], |_, side| fetched(shared(side), FIRST, 1, &[]))?;
    pair.ask("share-fetch-again", &[1], |_, side| fetched(shared(side), FIRST, 1, &[]))?;
    pair.ask("share-fetch-skips", &[1], |_, side| fetched(shared(side), FIRST, 9, &[]))?;
    // Closing gives everything back.
    pair.ask("share-fetch-gives-back", &[1], |_, side| fetched(shared(side), FIRST, -1, &[]))?;
    pair.ask("share-fetch-closed", &[1], |_, side| fetched(shared(side), FIRST, 2, &[]))?;
    for index in [0, 1] {
        pair.ask(&format!("share-fetch-second-{index}"), &[1], |_, side| {
            waiting(fetched(shared(side), FIRST, 0, &[(index, &[])]))
        })?;
    }
    pair.ask("share-fetch-both", &[1], |_, side| fetched(shared(side), FIRST, 0, &[(0, &[]), (1, &[])]))?;
    Ok(())
}

fn acknowledgements(pair: &mut Pair) -> Result<()> {
    let mut epoch = 1;
    for (name, index, said) in [
        ("accepts", 0, &[(0, 0, &[ACCEPT][..])][..]),
        ("nothing", 0, &[]),
        ("accepts-again", 0, &[(0, 0, &[ACCEPT])]),
        ("mixed", 0, &[(1, 3, &[REJECT, ACCEPT, RELEASE])]),
        ("kinds", 1, &[(0, 0, &[9])]),
        ("negative-kind", 1, &[(0, 0, &[-1])]),
        ("no-kind", 1, &[(0, 0, &[])]),
        ("kinds-too-few", 1, &[(0, 2, &[ACCEPT, ACCEPT])]),
        ("backwards", 1, &[(2, 0, &[ACCEPT])]),
        ("out-of-order", 1, &[(1, 1, &[ACCEPT]), (0, 0, &[ACCEPT])]),
        ("overlapping", 1, &[(0, 1, &[ACCEPT]), (1, 2, &[ACCEPT])]),
        ("beyond", 1, &[(7, 9, &[ACCEPT])]),
        ("partly-beyond", 1, &[(2, 9, &[ACCEPT])]),
        ("renews-unasked", 1, &[(0, 0, &[RENEW])]),
        ("gap", 1, &[(0, 0, &[0])]),
        ("unknown-partition", 9, &[(0, 0, &[ACCEPT])]),
    ] {
        let answers = pair.ask(&format!("share-acknowledge-{name}"), &[1], |_, side| {
            acknowledged(shared(side), FIRST, epoch, index, said)
        })?;
        // Both go on where the first one is, as they must agree.
        if answers[0]["error_code"] == 0 {
            epoch += 1;
        }
    }
    pair.ask("share-acknowledge-unknown-topic", &[1], |_, _| {
        acknowledged(NOBODYS_ID, FIRST, epoch, 0, &[(0, 0, &[ACCEPT])])
    })?;
    // Somebody else has a session, and not the records.
    pair.ask("share-fetch-other", &[1], |_, side| fetched(shared(side), SECOND, 0, &[(1, &[])]))?;
    pair.ask("share-acknowledge-others", &[1], |_, side| {
        acknowledged(shared(side), SECOND, 1, 1, &[(0, 0, &[ACCEPT])])
    })?;
    pair.ask("share-fetch-released", &[1], |_, side| waiting(fetched(shared(side), SECOND, 2, &[(0, &[])])))?;
    pair.ask("share-fetch-says", &[1], |_, side| fetched(shared(side), SECOND, 3, &[(0, &[(3, 3, &[RELEASE])])]))?;
    pair.ask("share-fetch-forgets", &[1], |_, side| {
        let forgotten = fetch::ForgottenTopic::default().with_topic_id(shared(side)).with_partitions(vec![0, 1, 9]);
        fetched(shared(side), SECOND, 4, &[]).with_forgotten_topics_data(vec![forgotten])
    })?;
    pair.ask("share-fetch-second-closes", &[1], |_, side| fetched(shared(side), SECOND, -1, &[]))?;
    Ok(())
}

/// Version 2: how many are acquired, and locks that are renewed.
fn newest(pair: &mut Pair) -> Result<()> {
    // The group, the member, and six numbers; for acknowledgements one.
    let of_fetch = 1 + GROUP.len() + 1 + SECOND.len() + 24;
    let of_acknowledge = 1 + GROUP.len() + 1 + SECOND.len() + 4;
    for (name, mode) in [("unknown", 7), ("negative", 255)] {
        pair.ask_bytes(&format!("share-fetch-2-mode-{name}"), |side| {
            newer(&fetched(shared(side), SECOND, 0, &[(0, &[])]), 2, of_fetch, &[mode, 0])
        })?;
        pair.ask_bytes(&format!("share-fetch-2-mode-{name}-goes-on"), |side| {
            newer(&fetched(shared(side), SECOND, 1, &[]), 2, of_fetch, &[mode, 0])
        })?;
        // Where there is nothing to read, nobody looks at the way.
        pair.ask_bytes(&format!("share-fetch-2-mode-{name}-closes"), |side| {
            newer(&fetched(shared(side), SECOND, -1, &[]), 2, of_fetch, &[mode, 0])
        })?;
    }
    for mode in [0, 1] {
        pair.ask_bytes(&format!("share-fetch-2-{mode}"), |side| {
            let request = waiting(fetched(shared(side), SECOND, 0, &[(0, &[])])).with_max_records(1).with_batch_size(1);
            newer(&request, 2, of_fetch, &[mode, 0])
        })?;
    }
    pair.ask_bytes("share-acknowledge-2-renews", |side| {
        newer(&acknowledged(shared(side), SECOND, 1, 0, &[(3, 3, &[RENEW])]), 2, of_acknowledge, &[1])
    })?;
    pair.ask_bytes("share-acknowledge-2-renews-unsaid", |side| {
        newer(&acknowledged(shared(side), SECOND, 2, 0, &[(3, 3, &[RENEW])]), 2, of_acknowledge, &[0])
    })?;
    pair.ask_bytes("share-fetch-2-renews", |side| {
        let request = fetched(shared(side), SECOND, 3, &[(0, &[(3, 3, &[RENEW])])]);
        newer(&request.with_max_bytes(0).with_max_records(0).with_batch_size(0), 2, of_fetch, &[0, 1])
    })?;
    pair.ask_bytes("share-fetch-2-renews-and-reads", |side| {
        newer(&fetched(shared(side), SECOND, 4, &[(0, &[(3, 3, &[RENEW])])]), 2, of_fetch, &[0, 1])
    })?;
    pair.ask_bytes("share-fetch-2-closes", |side| newer(&fetched(shared(side), SECOND, -1, &[]), 2, of_fetch, &[0, 0]))
}

/// Sessions end with what they still say.
fn the_end(pair: &mut Pair) -> Result<()> {
    pair.ask("share-fetch-third", &[1], |_, side| waiting(fetched(shared(side), SECOND, 0, &[(0, &[])])))?;
    pair.ask("share-acknowledge-closes", &[1], |_, side| {
        acknowledged(shared(side), SECOND, -1, 0, &[(3, 3, &[ACCEPT])])
    })?;
    pair.ask("share-acknowledge-closed", &[1], |_, side| {
        acknowledged(shared(side), SECOND, 1, 0, &[(3, 3, &[ACCEPT])])
    })?;
    pair.ask("share-fetch-first-closes", &[1], |_, side| fetched(shared(side), FIRST, -1, &[]))?;
    Ok(())
}
