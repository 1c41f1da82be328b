//! Carrying a drain through: look, do what is due, look again.

use std::{
    collections::BTreeMap,
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest, IncrementalAlterConfigsRequest, TopicName,
        UnregisterBrokerRequest,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        elect_leaders_request::TopicPartitions,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};
use serde_json::{Value, json};
use varve_metadata::image::{ALL_LOG_DIRS, CORDONED_LOG_DIRS};

use super::{
    DrainArgs,
    client::{Client, check},
    plan::{Move, Plan, Refusal, can_elect, plan},
    view::View,
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
/// Refusals that are told one by one.
const TOLD: usize = 20;
const TIMEOUT_MS: i32 = 60_000;
/// Kafka's number of a broker's settings, and of the two ways to change one.
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The broker holds nothing.
    Drained,
    /// It holds what it held, or some of it.
    NotDrained,
}

/// `varve broker drain`.
pub(super) async fn drain<W: Write>(
    client: &mut Client,
    asked: &DrainArgs,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    Ok(match run(client, asked, out).await? {
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
    let (id, begun) = (asked.id, Instant::now());
    if run(client, asked, out).await? == End::NotDrained {
        return Ok(ExitCode::FAILURE);
    }
    if asked.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let mut is_told = false;
    let mut failed = 0;
    // `run` left it so, if it runs.
    let mut cordon = Cordon::default();
    loop {
        match look(client, id, &mut cordon).await {
            Ok(view) => {
                failed = 0;
                if view.held_by(id).next().is_some() {
                    bail!("broker {id} holds replicas again: somebody moved them there");
                }
                match view.brokers.get(&id) {
                    None => break,
                    Some(broker) if broker.is_fenced => {
                        unregister(client, id).await?;
                        break;
                    }
                    Some(_) => {}
                }
                if !is_told {
                    tell(out, id, "stop the process now", &[])?;
                    is_told = true;
                }
            }
            Err(error) => give_up_after(&mut failed, error)?,
        }
        if is_over(asked, begun) {
            tell(out, id, "not forgotten: its process still runs", &[])?;
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tell(out, id, "forgotten", &[])?;
    Ok(ExitCode::SUCCESS)
}

/// `varve broker undrain`.
pub(super) async fn undrain(client: &mut Client, id: i32) -> anyhow::Result<ExitCode> {
    let view = View::read(client).await?;
    match view.brokers.get(&id) {
        None => bail!("there is no broker {id}"),
        Some(broker) if broker.is_fenced => bail!("broker {id} does not run: start it first"),
        Some(_) => {}
    }
    cordon(client, id, false).await?;
    if view.held_by(id).any(|partition| partition.removing.contains(&id)) {
        eprintln!("replicas are still being moved off it: kafka-reassign-partitions.sh --cancel keeps them here");
    }
    Ok(ExitCode::SUCCESS)
}

async fn run<W: Write>(client: &mut Client, asked: &DrainArgs, out: &mut Out<W>) -> anyhow::Result<End> {
    let (id, begun) = (asked.id, Instant::now());
    let first = View::read(client).await?;
    if !first.brokers.contains_key(&id) {
        bail!("there is no broker {id}");
    }
    let planned = plan(&first, id, asked.allow_under_replicated);
    if asked.dry_run {
        return dry_run(id, &planned, out);
    }
    if !planned.refused.is_empty() {
        refuse(id, &planned.refused, out)?;
        return Ok(End::NotDrained);
    }
    // Of a broker that does not run only leftovers can go; it comes last when replicas are placed anyhow.
    let mut cordon = Cordon::default();
    if cordon.keep(client, &first, id).await? {
        tell(out, id, "cordoned", &[])?;
    }
    let total = first.held_by(id).count();
    let bar = progress_bar(total as u64, progress::REPLICAS);
    let mut said = None;
    let mut failed = 0;
    loop {
        let looked = Instant::now();
        match step(client, asked, &mut cordon).await {
            Ok(Step { left: 0, .. }) => break,
            Ok(Step { left, under_way, waits_for }) => {
                failed = 0;
                bar.set_position(total.saturating_sub(left) as u64);
                bar.set_message(match &waits_for {
                    Some(reason) => format!("waiting: {reason}"),
                    None => format!("{under_way} under way"),
                });
                let state = (left, waits_for.clone());
                if said.as_ref() != Some(&state) {
                    let mut fields = vec![("left", json!(left)), ("under_way", json!(under_way))];
                    fields.extend(waits_for.map(|reason| ("waits_for", json!(reason))));
                    // People see the bar.
                    if asked.json {
                        tell(out, id, "moving", &fields)?;
                    }
                    said = Some(state);
                }
            }
            Err(error) => give_up_after(&mut failed, error)?,
        }
        if is_over(asked, begun) {
            bar.finish_and_clear();
            tell(out, id, "not drained in time; what was begun goes on", &[])?;
            return Ok(End::NotDrained);
        }
        tokio::time::sleep(LOOK_EVERY.max(looked.elapsed() * REST)).await;
    }
    bar.finish_and_clear();
    tell(out, id, "drained", &[("replicas_moved", json!(total))])?;
    Ok(End::Drained)
}

/// What keeps new replicas from the broker. One that is down cannot be told; it is when it comes back meanwhile.
#[derive(Debug, Default)]
struct Cordon {
    was_seen: bool,
}

/// What is to be done about it at one look.
#[derive(Debug, PartialEq, Eq)]
enum CordonStep {
    Nothing,
    Set,
    /// Somebody took it back.
    GiveUp,
}

impl Cordon {
    fn step(&mut self, view: &View, id: i32) -> CordonStep {
        match view.brokers.get(&id) {
            None => CordonStep::Nothing,
            Some(broker) if broker.is_fenced || broker.is_silent => CordonStep::Nothing,
            Some(broker) if broker.is_cordoned => {
                self.was_seen = true;
                CordonStep::Nothing
            }
            Some(_) if self.was_seen => CordonStep::GiveUp,
            Some(_) => CordonStep::Set,
        }
    }

    /// `true`: it was not there, and is now.
    async fn keep(&mut self, client: &mut Client, view: &View, id: i32) -> anyhow::Result<bool> {
        match self.step(view, id) {
            CordonStep::Nothing => Ok(false),
            CordonStep::Set => cordon(client, id, true).await.map(|()| true),
            CordonStep::GiveUp => Err(TakenBack(id).into()),
        }
    }
}

/// No look at the cluster that failed, but the end of a drain.
#[derive(Debug, thiserror::Error)]
#[error("broker {0} may take new replicas again: somebody took the drain back, or set cordoned.log.dirs")]
struct TakenBack(i32);

fn is_over(asked: &DrainArgs, begun: Instant) -> bool {
    asked.timeout.is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds))
}

/// Brokers come and go while a cluster is worked on: a look that fails is no end.
fn give_up_after(failed: &mut u32, error: anyhow::Error) -> anyhow::Result<()> {
    *failed += 1;
    if *failed >= FAILED_LOOKS || error.is::<TakenBack>() { Err(error) } else { Ok(()) }
}

/// What one look found, and did.
struct Step {
    /// Replicas that the broker holds.
    left: usize,
    /// Those of them that leave it.
    under_way: usize,
    /// What keeps another one from leaving.
    waits_for: Option<String>,
}

async fn step(client: &mut Client, asked: &DrainArgs, cordon: &mut Cordon) -> anyhow::Result<Step> {
    let id = asked.id;
    let view = look(client, id, cordon).await?;
    let left = view.held_by(id).count();
    let planned = plan(&view, id, asked.allow_under_replicated);
    let room = (asked.parallel as usize).saturating_sub(planned.under_way);
    let begun = &planned.moves[..room.min(planned.moves.len())];
    let mut waits_for = planned.refused.first().map(ToString::to_string);
    if let Some(error) = reassign(client, begun).await? {
        waits_for = Some(error);
    }
    let mut elections = planned.elections;
    // What was just asked for leads elsewhere at once, where a replica is in sync already.
    elections.extend(begun.iter().filter(|one| is_led_by(&view, one, id)).map(|one| (one.topic.clone(), one.index)));
    elect(client, &elections).await?;
    Ok(Step { left, under_way: planned.under_way + begun.len(), waits_for })
}

/// The cluster, with the broker kept from new replicas.
async fn look(client: &mut Client, id: i32, cordon: &mut Cordon) -> anyhow::Result<View> {
    let view = View::read(client).await?;
    cordon.keep(client, &view, id).await?;
    Ok(view)
}

fn is_led_by(view: &View, asked: &Move, id: i32) -> bool {
    let now = view.partitions.iter().find(|one| one.topic == asked.topic && one.index == asked.index);
    now.is_some_and(|now| {
        can_elect(&super::view::PartitionView { replicas: asked.replicas.clone(), ..now.clone() }, id)
    })
}

/// Asks for other replicas. The first refusal of a partition, if there was one.
async fn reassign(client: &mut Client, moves: &[Move]) -> anyhow::Result<Option<String>> {
    if moves.is_empty() {
        return Ok(None);
    }
    let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
    for one in moves {
        let replicas = one.replicas.iter().map(|id| BrokerId(*id)).collect();
        let partition = ReassignablePartition::default().with_partition_index(one.index).with_replicas(Some(replicas));
        topics.entry(&one.topic).or_default().push(partition);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| ReassignableTopic::default().with_name(topic_name(name)).with_partitions(partitions));
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_allow_replication_factor_change(false)
        .with_topics(topics.collect());
    let answer = client.ask(1, &request).await?;
    check(answer.error_code, answer.error_message.as_deref()).context("replicas cannot be moved")?;
    for topic in answer.responses {
        for partition in topic.partitions {
            if let Err(error) = check(partition.error_code, partition.error_message.as_deref()) {
                return Ok(Some(format!("{}-{}: {error:#}", topic.name.as_str(), partition.partition_index)));
            }
        }
    }
    Ok(None)
}

/// Has preferred replicas lead. Where one cannot yet, the end of the move decides.
async fn elect(client: &mut Client, partitions: &[(String, i32)]) -> anyhow::Result<()> {
    if partitions.is_empty() {
        return Ok(());
    }
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    partitions.iter().for_each(|(topic, index)| topics.entry(topic).or_default().push(*index));
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| TopicPartitions::default().with_topic(topic_name(name)).with_partitions(partitions));
    let request =
        ElectLeadersRequest::default().with_timeout_ms(TIMEOUT_MS).with_topic_partitions(Some(topics.collect()));
    let answer = client.ask(2, &request).await?;
    check(answer.error_code, None).context("leadership cannot be moved")
}

/// Keeps new replicas from the broker, or lets it have them.
async fn cordon(client: &mut Client, id: i32, is_cordoned: bool) -> anyhow::Result<()> {
    let (operation, value) = match is_cordoned {
        true => (SET, Some(StrBytes::from_static_str(ALL_LOG_DIRS))),
        false => (DELETE, None),
    };
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(CORDONED_LOG_DIRS))
        .with_config_operation(operation)
        .with_value(value);
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(StrBytes::from_string(id.to_string()))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.ask_broker(id, 1, &request).await?;
    let result = answer.responses.first().context("one resource")?;
    check(result.error_code, result.error_message.as_deref())
        .with_context(|| format!("{CORDONED_LOG_DIRS} of broker {id} cannot be changed"))
}

async fn unregister(client: &mut Client, id: i32) -> anyhow::Result<()> {
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
    let answer = client.ask(0, &request).await?;
    // Sent twice, because the first answer was lost.
    if ResponseError::try_from_code(answer.error_code) == Some(ResponseError::BrokerIdNotRegistered) {
        return Ok(());
    }
    check(answer.error_code, answer.error_message.as_deref())
        .with_context(|| format!("broker {id} cannot be unregistered"))
}

fn dry_run<W: Write>(id: i32, planned: &Plan, out: &mut Out<W>) -> anyhow::Result<End> {
    for one in &planned.moves {
        let fields = [("topic", json!(one.topic)), ("partition", json!(one.index)), ("replicas", json!(one.replicas))];
        out.line(0, &fields)?;
    }
    if planned.refused.is_empty() {
        let fields = [("to_move", json!(planned.moves.len())), ("under_way", json!(planned.under_way))];
        tell(out, id, "can be drained", &fields)?;
        return Ok(End::Drained);
    }
    refuse(id, &planned.refused, out)?;
    Ok(End::NotDrained)
}

fn refuse<W: Write>(id: i32, refused: &[Refusal], out: &mut Out<W>) -> anyhow::Result<()> {
    for refusal in refused.iter().take(TOLD) {
        out.line(0, &[("broker", json!(id)), ("state", json!("refused")), ("reason", json!(refusal.to_string()))])?;
    }
    let more = refused.len().saturating_sub(TOLD);
    if more > 0 {
        tell(out, id, "refused", &[("more_reasons", json!(more))])?;
    }
    Ok(out.flush()?)
}

fn tell<W: Write>(out: &mut Out<W>, id: i32, state: &str, more: &[(&'static str, Value)]) -> anyhow::Result<()> {
    let mut fields = vec![("broker", json!(id)), ("state", json!(state))];
    fields.extend(more.iter().cloned());
    out.line(0, &fields)?;
    Ok(out.flush()?)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{super::view::BrokerView, *};

    #[test]
    fn a_dead_broker_that_comes_back_while_it_is_drained_is_cordoned_then() {
        let at = |broker| View { brokers: [(2, broker)].into(), partitions: Vec::new() };
        let serves = BrokerView::default();
        let down = BrokerView { is_fenced: true, ..serves.clone() };
        let starts = BrokerView { is_cordoned: true, is_silent: true, ..serves.clone() };
        let cordoned = BrokerView { is_cordoned: true, ..serves.clone() };
        let mut cordon = Cordon::default();
        let mut step = |broker: &BrokerView| cordon.step(&at(broker.clone()), 2);
        assert_eq!(step(&down), CordonStep::Nothing);
        assert_eq!(step(&starts), CordonStep::Nothing);
        assert_eq!(step(&serves), CordonStep::Set, "it is back");
        assert_eq!(step(&serves), CordonStep::Set, "the first attempt had no effect");
        assert_eq!(step(&cordoned), CordonStep::Nothing);
        assert_eq!(step(&down), CordonStep::Nothing, "down once more");
        assert_eq!(step(&serves), CordonStep::GiveUp, "somebody took it back");
        assert_eq!(Cordon::default().step(&at(serves), 3), CordonStep::Nothing, "it is forgotten");
    }
}
