//! Carrying a drain through: look, do what is due, look again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde_json::json;

use super::{
    DrainArgs, asks,
    client::Client,
    cordon::{Cordons, TakenBack},
    plan::{Move, Plan, Refusal, can_elect, left_out, plan},
    report::{self, tell},
    view::{BrokerView, PartitionView, View},
};
use crate::cli::{
    out::Out,
    progress::{self, progress_bar},
};

/// Between two looks at a cluster that moves replicas, at least; and so many times as long as a look took, so that a large
/// cluster is not asked all the time.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const REST: u32 = 10;
/// Looks in a row that may fail before the drain is given up.
const FAILED_LOOKS: u32 = 60;

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The brokers hold nothing.
    Drained,
    /// They hold what they held, or some of it.
    NotDrained,
}

/// `varve broker drain`.
pub(super) async fn drain<W: Write>(
    client: &mut Client,
    asked: &DrainArgs,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let first = View::read(client).await?;
    Ok(match run(client, asked, &first, out).await? {
        End::Drained => ExitCode::SUCCESS,
        End::NotDrained => ExitCode::FAILURE,
    })
}

/// `varve broker decommission`.
pub(super) async fn decommission<W: Write>(
    client: &mut Client,
    asked: &DrainArgs,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let first = View::read(client).await?;
    let (asked, forgotten) = &without_forgotten(&first, asked);
    forgotten.iter().try_for_each(|id| tell(out, *id, "forgotten", &[]))?;
    if run(client, asked, &first, out).await? == End::NotDrained {
        return Ok(ExitCode::FAILURE);
    }
    if asked.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let mut remembered = asked.leaving();
    let mut told = BTreeSet::new();
    let mut failed = 0;
    // `run` left them so, where they run.
    let mut cordons = Cordons::of(&remembered);
    loop {
        match forget_stopped(client, &mut remembered, &mut cordons, out).await {
            Ok(()) => {
                failed = 0;
                for id in &remembered {
                    if told.insert(*id) {
                        tell(out, *id, "stop the process now", &[])?;
                    }
                }
            }
            Err(error) => give_up_after(&mut failed, error)?,
        }
        if remembered.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if is_over(asked, begun) {
            for id in &remembered {
                tell(out, *id, "not forgotten: its process still runs", &[])?;
            }
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is left to be done of a command that was broken off, and the brokers that an earlier one had forgotten. If that is all of
/// them they were never there, as far as anybody can tell.
fn without_forgotten(view: &View, asked: &DrainArgs) -> (DrainArgs, Vec<i32>) {
    let (known, forgotten): (Vec<i32>, Vec<i32>) =
        asked.ids.iter().copied().partition(|id| view.brokers.contains_key(id));
    match known.is_empty() {
        true => (asked.clone(), Vec::new()),
        false => (DrainArgs { ids: known, ..asked.clone() }, forgotten),
    }
}

/// Has the cluster forget those of the brokers that do not run any more, and takes them from `remembered`.
async fn forget_stopped<W: Write>(
    client: &mut Client,
    remembered: &mut BTreeSet<i32>,
    cordons: &mut Cordons,
    out: &mut Out<W>,
) -> anyhow::Result<()> {
    let view = look(client, cordons).await?;
    for id in remembered.clone() {
        if view.held_by(id).next().is_some() {
            return Err(HoldsAgain(id).into());
        }
        match view.brokers.get(&id) {
            Some(broker) if !broker.is_fenced => continue,
            Some(_) => asks::unregister(client, id).await?,
            None => {}
        }
        remembered.remove(&id);
        cordons.forget(id);
        tell(out, id, "forgotten", &[])?;
    }
    Ok(())
}

/// No look at the cluster that failed, but the end of a drain.
#[derive(Debug, thiserror::Error)]
#[error("broker {0} holds replicas again: somebody moved them there")]
struct HoldsAgain(i32);

/// `varve broker undrain`.
pub(super) async fn undrain(client: &mut Client, ids: &[i32]) -> anyhow::Result<ExitCode> {
    let view = View::read(client).await?;
    for id in ids {
        match view.brokers.get(id) {
            None => bail!("there is no broker {id}"),
            Some(broker) if broker.is_fenced => bail!("broker {id} does not run: start it first"),
            Some(_) => {}
        }
    }
    for id in ids {
        asks::cordon(client, *id, false).await?;
        if view.held_by(*id).any(|partition| partition.removing.contains(id)) {
            eprintln!(
                "replicas are still being moved off broker {id}: kafka-reassign-partitions.sh --cancel keeps them there"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `first`: a look at the cluster, of a moment ago.
async fn run<W: Write>(client: &mut Client, asked: &DrainArgs, first: &View, out: &mut Out<W>) -> anyhow::Result<End> {
    let (leaving, begun) = (asked.leaving(), Instant::now());
    if let Some(id) = leaving.iter().find(|id| !first.brokers.contains_key(id)) {
        bail!("there is no broker {id}");
    }
    let planned = plan(first, &leaving, asked.allowed());
    if !planned.refused.is_empty() {
        report::refusals(&planned.refused, out)?;
        return Ok(End::NotDrained);
    }
    report::left_out(&left_out(first, &leaving), out)?;
    let held: BTreeMap<i32, usize> = leaving.iter().map(|id| (*id, first.held_by(*id).count())).collect();
    if asked.dry_run {
        report::moves(&planned, &held, out)?;
        return Ok(End::Drained);
    }
    let mut cordons = Cordons::of(&leaving);
    let kept = cordons.keep(client, first).await;
    cordons.told().iter().try_for_each(|id| tell(out, *id, "cordoned", &[]))?;
    kept?;
    if let Some(refused) = meanwhile_refused(client, asked, &mut cordons).await? {
        for id in cordons.told() {
            asks::cordon(client, *id, false).await?;
            tell(out, *id, "takes new replicas again", &[])?;
        }
        report::refusals(&refused, out)?;
        return Ok(End::NotDrained);
    }
    carry_through(client, asked, &mut cordons, &held, begun, out).await
}

/// Whether others were taken away while these brokers were cordoned: of two drains that begin at once, and may not both be, at
/// least one sees the other here.
async fn meanwhile_refused(
    client: &mut Client,
    asked: &DrainArgs,
    cordons: &mut Cordons,
) -> anyhow::Result<Option<Vec<Refusal>>> {
    if cordons.told().is_empty() {
        return Ok(None);
    }
    let mut failed = 0;
    for _ in 0..FAILED_LOOKS {
        match look(client, cordons).await {
            // A broker may answer before it knows what it was told.
            Ok(view) if !may_any_get(&view, cordons.told()) => {
                let mut refused = plan(&view, &asked.leaving(), asked.allowed()).refused;
                refused.retain(|refusal| refusal.why.is_for_want_of_brokers());
                return Ok(Some(refused).filter(|refused| !refused.is_empty()));
            }
            Ok(_) => {}
            Err(error) => give_up_after(&mut failed, error)?,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("cordoned.log.dirs was set for {:?}, and they still take new replicas", cordons.told())
}

fn may_any_get(view: &View, ids: &BTreeSet<i32>) -> bool {
    ids.iter().any(|id| view.brokers.get(id).is_some_and(BrokerView::takes_replicas))
}

/// `held`: how many replicas each of the brokers had to lose.
async fn carry_through<W: Write>(
    client: &mut Client,
    asked: &DrainArgs,
    cordons: &mut Cordons,
    held: &BTreeMap<i32, usize>,
    begun: Instant,
    out: &mut Out<W>,
) -> anyhow::Result<End> {
    let total: usize = held.values().sum();
    let bar = progress_bar(total as u64, progress::REPLICAS);
    let mut said = BTreeMap::new();
    let mut failed = 0;
    loop {
        let looked = Instant::now();
        match step(client, asked, cordons).await {
            Ok(steps) => {
                failed = 0;
                let left: usize = steps.values().map(|step| step.left).sum();
                bar.set_position(total.saturating_sub(left) as u64);
                bar.set_message(message(&steps));
                let news = steps.iter().filter(|(id, step)| said.get(*id) != Some(&step.news()));
                bar.suspend(|| news.into_iter().try_for_each(|(id, step)| step.tell(*id, held, asked.json, out)))?;
                said = steps.iter().map(|(id, step)| (*id, step.news())).collect();
                if left == 0 {
                    bar.finish_and_clear();
                    return Ok(End::Drained);
                }
            }
            Err(error) => give_up_after(&mut failed, error)?,
        }
        if is_over(asked, begun) {
            bar.finish_and_clear();
            // Of those that were never looked at nobody knows more than that.
            for id in held.keys().filter(|id| said.get(*id).is_none_or(|(left, _)| *left > 0)) {
                tell(out, *id, "not drained in time; what was begun goes on", &[])?;
            }
            return Ok(End::NotDrained);
        }
        tokio::time::sleep(LOOK_EVERY.max(looked.elapsed() * REST)).await;
    }
}

fn is_over(asked: &DrainArgs, begun: Instant) -> bool {
    asked.timeout.is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds))
}

/// Brokers come and go while a cluster is worked on: a look that fails is no end.
fn give_up_after(failed: &mut u32, error: anyhow::Error) -> anyhow::Result<()> {
    *failed += 1;
    let is_end = *failed >= FAILED_LOOKS || error.is::<TakenBack>() || error.is::<HoldsAgain>();
    if is_end { Err(error) } else { Ok(()) }
}

/// What one look found of a broker, and did.
struct Step {
    /// Replicas that it holds.
    left: usize,
    /// Those of them that leave it.
    under_way: usize,
    /// What keeps another one from leaving.
    waits_for: Option<String>,
}

impl Step {
    /// What is worth a line when it has changed.
    fn news(&self) -> (usize, Option<String>) {
        (self.left, self.waits_for.clone())
    }

    fn tell<W: Write>(&self, id: i32, held: &BTreeMap<i32, usize>, json: bool, out: &mut Out<W>) -> anyhow::Result<()> {
        if self.left == 0 {
            return tell(out, id, "drained", &[("replicas_moved", json!(held.get(&id)))]);
        }
        // People see the bar.
        if !json {
            return Ok(());
        }
        let mut fields = vec![("left", json!(self.left)), ("under_way", json!(self.under_way))];
        fields.extend(self.waits_for.as_ref().map(|reason| ("waits_for", json!(reason))));
        tell(out, id, "moving", &fields)
    }
}

/// Beside the bar: what keeps one of them, or how much is under way of each.
fn message(steps: &BTreeMap<i32, Step>) -> String {
    if let Some(reason) = steps.values().find_map(|step| step.waits_for.as_ref()) {
        return format!("waiting: {reason}");
    }
    if let [step] = steps.values().collect::<Vec<_>>()[..] {
        return format!("{} under way", step.under_way);
    }
    let each = steps.iter().map(|(id, step)| format!("broker {id}: {} left, {} under way", step.left, step.under_way));
    each.collect::<Vec<_>>().join("; ")
}

async fn step(client: &mut Client, asked: &DrainArgs, cordons: &mut Cordons) -> anyhow::Result<BTreeMap<i32, Step>> {
    let leaving = asked.leaving();
    let view = look(client, cordons).await?;
    let planned = plan(&view, &leaving, asked.allowed());
    let room = (asked.parallel as usize).saturating_sub(planned.under_way);
    let begun = &planned.moves[..room.min(planned.moves.len())];
    let refused = asks::reassign(client, begun).await?;
    let steps = leaving.iter().map(|id| (*id, seen(&view, *id, &planned, begun, refused.as_deref()))).collect();
    let mut elections = planned.elections;
    // What was just asked for leads elsewhere at once, where a replica is in sync already.
    let led = begun.iter().filter(|one| is_led_by(&view, one, &leaving));
    elections.extend(led.map(|one| (one.topic.clone(), one.index)));
    asks::elect(client, &elections).await?;
    Ok(steps)
}

/// `refused`: what the controller said to one of those that were `begun`.
fn seen(view: &View, id: i32, planned: &Plan, begun: &[Move], refused: Option<&str>) -> Step {
    let left = view.held_by(id).count();
    let waits = planned.refused.iter().filter(|refusal| refusal.held_by.contains(&id));
    let to_begin = planned.moves[begun.len()..].iter().filter(|one| one.from.contains(&id)).count();
    let mut waits_for = waits.clone().next().map(ToString::to_string);
    if let Some(refused) = refused.filter(|_| begun.iter().any(|one| one.from.contains(&id))) {
        waits_for = Some(refused.to_owned());
    }
    Step { left, under_way: left - to_begin - waits.count(), waits_for }
}

/// The cluster, with the brokers kept from new replicas.
async fn look(client: &mut Client, cordons: &mut Cordons) -> anyhow::Result<View> {
    let view = View::read(client).await?;
    cordons.keep(client, &view).await?;
    Ok(view)
}

fn is_led_by(view: &View, asked: &Move, leaving: &BTreeSet<i32>) -> bool {
    let now = view.partitions.iter().find(|one| one.topic == asked.topic && one.index == asked.index);
    now.is_some_and(|now| can_elect(&PartitionView { replicas: asked.replicas.clone(), ..now.clone() }, leaving))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Asked {
        #[command(flatten)]
        drain: DrainArgs,
    }

    #[test]
    fn a_decommission_goes_on_with_those_that_are_not_forgotten_yet() {
        let view =
            View { brokers: [(1, BrokerView::default()), (4, BrokerView::default())].into(), partitions: vec![] };
        let left = |ids: &[&str]| {
            let asked = Asked::parse_from(["varve", "--parallel", "3"].iter().chain(ids)).drain;
            let (left, forgotten) = without_forgotten(&view, &asked);
            assert_eq!(left.parallel, 3);
            (left.ids, forgotten)
        };
        assert_eq!(left(&["4", "1"]), (vec![4, 1], vec![]));
        assert_eq!(left(&["5", "4", "6"]), (vec![4], vec![5, 6]));
        assert_eq!(left(&["5", "6"]), (vec![5, 6], vec![]), "they are refused as unknown");
    }
}
