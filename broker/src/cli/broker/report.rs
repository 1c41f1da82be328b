//! What a drain says: to people in words, to programs as JSON.

use std::{collections::BTreeMap, io::Write};

use serde_json::{Value, json};

use super::plan::{LeftOut, Plan, Refusal};
use crate::cli::out::Out;

/// Refusals that are told one by one.
const TOLD: usize = 20;

/// What would move where, and what each broker would lose. `held`: how many partitions each of them holds.
pub(super) fn moves<W: Write>(planned: &Plan, held: &BTreeMap<i32, usize>, out: &mut Out<W>) -> anyhow::Result<()> {
    for one in &planned.moves {
        let fields = [("topic", json!(one.topic)), ("partition", json!(one.index)), ("replicas", json!(one.replicas))];
        out.line(0, &fields)?;
    }
    for (id, held) in held {
        let to_move = planned.moves.iter().filter(|one| one.from.contains(id)).count();
        let fields = [("to_move", json!(to_move)), ("under_way", json!(held - to_move))];
        tell(out, *id, "can be drained", &fields)?;
    }
    Ok(())
}

/// Why nothing is done.
pub(super) fn refusals<W: Write>(refused: &[Refusal], out: &mut Out<W>) -> anyhow::Result<()> {
    for refusal in refused.iter().take(TOLD) {
        for id in &refusal.held_by {
            tell(out, *id, "refused", &[("reason", json!(refusal.to_string()))])?;
        }
    }
    let more = refused.len().saturating_sub(TOLD);
    if let Some(refusal) = refused.last().filter(|_| more > 0) {
        for id in &refusal.held_by {
            tell(out, *id, "refused", &[("more_reasons", json!(more))])?;
        }
    }
    Ok(())
}

/// Who gets nothing of what is moved, although it is not drained by this command.
pub(super) fn left_out<W: Write>(out_of_it: &[LeftOut], out: &mut Out<W>) -> anyhow::Result<()> {
    for one in out_of_it {
        let (LeftOut::Fenced(id) | LeftOut::Silent(id) | LeftOut::Cordoned(id)) = one;
        tell(out, *id, "gets nothing", &[("reason", json!(one.to_string()))])?;
    }
    Ok(())
}

/// One broker's state, at once.
pub(super) fn tell<W: Write>(
    out: &mut Out<W>,
    id: i32,
    state: &str,
    more: &[(&'static str, Value)],
) -> anyhow::Result<()> {
    let mut fields = vec![("broker", json!(id)), ("state", json!(state))];
    fields.extend(more.iter().cloned());
    out.line(0, &fields)?;
    Ok(out.flush()?)
}
