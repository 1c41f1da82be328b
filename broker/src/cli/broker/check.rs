//! `varve broker check`: asking, again and again if that is wished, whether brokers may be stopped.

use std::{
    collections::BTreeSet,
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{
    CheckArgs,
    client::Client,
    report::tell,
    safety::{Felt, Next, Patience, felt},
    view::View,
};
use crate::cli::{
    out::Out,
    progress::{self, progress_bar},
};

/// Partitions that are told one by one.
const TOLD: usize = 20;
/// What one look may take, also where less is left of the time to wait.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// `ids`: the brokers that would be stopped at the same time.
pub(super) async fn check<W: Write>(
    client: &mut Client,
    asked: &CheckArgs,
    ids: &BTreeSet<i32>,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let mut patience = Patience::new(Duration::from_secs(asked.wait_seconds), Duration::from_secs(asked.for_seconds));
    let bar = progress_bar(0, progress::WAITING);
    let mut said = None;
    loop {
        let at = begun.elapsed();
        let looked = timeout(patience.left(at).max(LOOK_LIMIT), View::read(client)).await;
        let now = begun.elapsed();
        match looked.context("the brokers do not answer in time").flatten() {
            Ok(view) => {
                if let Some(id) = ids.iter().find(|id| !view.brokers.contains_key(id)) {
                    bail!("there is no broker {id}");
                }
                let felt = felt(&view, ids);
                let counts = |one: &&Felt| !(asked.allow_unavoidable && one.is_unavoidable);
                let against: Vec<&Felt> = felt.iter().filter(counts).collect();
                let may_help = against.iter().any(|one| !one.is_unavoidable);
                match patience.after_look(now, against.is_empty(), may_help) {
                    Next::Yes => {
                        bar.finish_and_clear();
                        say_yes(&view, ids, felt.len(), out)?;
                        return Ok(ExitCode::SUCCESS);
                    }
                    Next::No => {
                        bar.finish_and_clear();
                        say_no(ids, &against, out)?;
                        return Ok(ExitCode::FAILURE);
                    }
                    Next::LookAgain => {
                        bar.set_message(message(&against));
                        // People see the bar.
                        if asked.json && said != Some(against.len()) {
                            say_waiting(ids, &against, out)?;
                        }
                        said = Some(against.len());
                    }
                }
            }
            Err(error) if patience.after_failure(now) => bar.set_message(format!("no answer: {error:#}")),
            Err(error) => return Err(error),
        }
        sleep(patience.pause(now, now.saturating_sub(at))).await;
    }
}

fn message(against: &[&Felt]) -> String {
    match against.first() {
        Some(first) => format!("waiting for {} partitions: {}", against.len(), reason(first)),
        None => "they may be stopped, if it stays so".to_owned(),
    }
}

fn reason(felt: &Felt) -> String {
    format!("{}-{} {}", felt.topic, felt.index, felt.why)
}

/// `unavoidable`: how many partitions feel it whenever it happens.
fn say_yes<W: Write>(view: &View, ids: &BTreeSet<i32>, unavoidable: usize, out: &mut Out<W>) -> anyhow::Result<()> {
    for id in ids {
        let is_fenced = view.brokers.get(id).is_some_and(|broker| broker.is_fenced);
        let state = if is_fenced { "does not serve" } else { "may be stopped" };
        let more = (unavoidable > 0).then(|| ("without_a_spare", json!(unavoidable)));
        tell(out, *id, state, more.as_slice())?;
    }
    Ok(())
}

fn say_no<W: Write>(ids: &BTreeSet<i32>, against: &[&Felt], out: &mut Out<W>) -> anyhow::Result<()> {
    for felt in against.iter().take(TOLD) {
        out.line(
            0,
            &[
                ("topic", json!(felt.topic)),
                ("partition", json!(felt.index)),
                ("reason", json!(felt.why.to_string())),
                ("not_in_sync", json!(felt.lagging)),
                ("unavoidable", json!(felt.is_unavoidable)),
            ],
        )?;
    }
    for id in ids {
        let mut more = vec![("partitions", json!(against.len()))];
        let untold = against.len().saturating_sub(TOLD);
        more.extend((untold > 0).then(|| ("not_listed", json!(untold))));
        tell(out, *id, "is needed", &more)?;
    }
    Ok(())
}

fn say_waiting<W: Write>(ids: &BTreeSet<i32>, against: &[&Felt], out: &mut Out<W>) -> anyhow::Result<()> {
    for id in ids {
        let mut more = vec![("partitions", json!(against.len()))];
        more.extend(against.first().map(|first| ("waits_for", json!(reason(first)))));
        tell(out, *id, "waiting", &more)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::safety::Why, *};

    #[test]
    fn of_many_partitions_the_first_are_named_and_the_others_counted() {
        let felt = |index| Felt {
            topic: "t".to_owned(),
            index,
            why: Why::TooFewInSync { in_sync: 1, min: 2 },
            lagging: vec![2],
            is_unavoidable: false,
        };
        let all: Vec<Felt> = (0..25).map(felt).collect();
        let mut out = Out::to(Vec::new(), false);
        say_no(&[1].into(), &all.iter().collect::<Vec<_>>(), &mut out).unwrap();
        let printed = String::from_utf8(out.finish().unwrap()).unwrap();
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), TOLD + 1);
        let first = "topic: t  partition: 0  reason: would have 1 in sync, and min.insync.replicas is 2  not_in_sync: [2]  \
                     unavoidable: false";
        assert_eq!(lines[0], first);
        assert_eq!(lines[TOLD], "broker: 1  state: is needed  partitions: 25  not_listed: 5");
    }
}
