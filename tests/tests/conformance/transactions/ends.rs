//! The end of a transaction: asked for once, again, and by the other generation of the protocol.

use anyhow::Result;
use kafka_protocol::messages::ProducerId;
use varve_tests::differential::Pair;

use super::{COMPLETE, add, await_state, end, id, introduce, producer, remember, write_as};
use crate::request::versions;

pub(super) fn script(pair: &mut Pair) -> Result<()> {
    of_one_generation(pair)?;
    of_the_other_generation(pair)
}

/// What ends are possible in which state, in both generations: again (in the epoch before) or anew.
fn of_one_generation(pair: &mut Pair) -> Result<()> {
    introduce(pair, "errors")?;
    for version in [versions(0, 4), vec![5]].concat() {
        for commit in [true, false] {
            pair.ask(&format!("txn-end-unknown-{commit}"), &[version], |_, side| {
                end(side, "errors", commit).with_transactional_id(id("nobody"))
            })?;
            pair.ask(&format!("txn-end-empty-id-{commit}"), &[version], |_, side| {
                end(side, "errors", commit).with_transactional_id(id(""))
            })?;
            pair.ask(&format!("txn-end-producer-{commit}"), &[version], |_, side| {
                end(side, "errors", commit).with_producer_id(ProducerId(99_999))
            })?;
            pair.ask(&format!("txn-end-later-epoch-{commit}"), &[version], |_, side| {
                end(side, "errors", commit).with_producer_epoch(77)
            })?;
        }
    }
    for version in [0, 2, 4] {
        for first in [true, false] {
            let name = format!("old-{version}-{first}");
            introduce(pair, &name)?;
            for commit in [true, false] {
                pair.ask(&format!("txn-end-old-empty-{commit}"), &[version], |_, side| end(side, &name, commit))?;
            }
            pair.ask("txn-add-before-end", &[3], |_, side| add(side, &name, &[("txn", &[3])]))?;
            pair.ask(&format!("txn-end-old-{first}"), &[version], |_, side| end(side, &name, first))?;
            await_state(pair, &name, &COMPLETE)?;
            for commit in [true, false] {
                pair.ask(&format!("txn-end-old-{first}-then-{commit}"), &[version], |_, side| {
                    end(side, &name, commit)
                })?;
            }
        }
    }
    for first in [None, Some(true), Some(false)] {
        for second in [true, false] {
            for again in [true, false] {
                let what = format!("{first:?}-{second}-{again}");
                let name = format!("new-{what}");
                introduce(pair, &name)?;
                introduce(pair, &name)?;
                if let Some(commit) = first {
                    pair.ask("txn-produce-before-end", &[12], |v, side| write_as(v, side, &name, 3, 0))?;
                    let answers =
                        pair.ask(&format!("txn-end-new-{commit}"), &[5], |_, side| end(side, &name, commit))?;
                    remember(pair, &name, &answers);
                    await_state(pair, &name, &COMPLETE)?;
                }
                let answers = pair.ask(&format!("txn-end-then-{what}"), &[5], |_, side| {
                    let (_, epoch) = producer(side, &name);
                    end(side, &name, second).with_producer_epoch(if again { epoch - 1 } else { epoch })
                })?;
                remember(pair, &name, &answers);
            }
        }
    }
    Ok(())
}

/// The end of one generation, asked for again by the other in the epoch before: that of a producer which was fenced.
fn of_the_other_generation(pair: &mut Pair) -> Result<()> {
    for commit in [true, false] {
        let name = format!("both-{commit}");
        introduce(pair, &name)?;
        introduce(pair, &name)?;
        pair.ask("txn-add-before-end", &[3], |_, side| add(side, &name, &[("txn", &[3])]))?;
        pair.ask(&format!("txn-end-old-{commit}"), &[4], |_, side| end(side, &name, commit))?;
        await_state(pair, &name, &COMPLETE)?;
        pair.ask("txn-end-other-generation", &[5], |_, side| {
            let (_, epoch) = producer(side, &name);
            end(side, &name, commit).with_producer_epoch(epoch - 1)
        })?;
    }
    Ok(())
}
