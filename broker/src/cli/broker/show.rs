//! `varve broker list` and `describe`.

use std::{io::Write, process::ExitCode};

use anyhow::bail;
use serde_json::json;

use super::{
    client::Client,
    plan::{Allowed, plan},
    view::{BrokerView, View},
};
use crate::cli::out::{Field, Out};

pub(super) async fn list<W: Write>(client: &mut Client, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let view = View::read(client).await?;
    for (id, broker) in &view.brokers {
        out.line(0, &fields(&view, *id, broker))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn describe<W: Write>(client: &mut Client, id: i32, out: &mut Out<W>) -> anyhow::Result<ExitCode> {
    let view = View::read(client).await?;
    let Some(broker) = view.brokers.get(&id) else { bail!("there is no broker {id}") };
    out.line(0, &fields(&view, id, broker))?;
    for partition in view.held_by(id) {
        let mut fields = vec![
            ("topic", json!(partition.topic)),
            ("partition", json!(partition.index)),
            ("leader", json!(partition.leader)),
            ("replicas", json!(partition.replicas)),
            ("in_sync", json!(partition.in_sync)),
        ];
        if !partition.adding.is_empty() || !partition.removing.is_empty() {
            fields.push(("adding", json!(partition.adding)));
            fields.push(("removing", json!(partition.removing)));
        }
        out.line(1, &fields)?;
    }
    for refusal in plan(&view, &[id].into(), Allowed::default()).refused {
        out.line(1, &[("keeps_it_from_being_drained", json!(refusal.to_string()))])?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn fields(view: &View, id: i32, broker: &BrokerView) -> Vec<Field> {
    let (mut leads, mut holds, mut lags, mut leaving) = (0, 0, 0, 0);
    for partition in view.held_by(id) {
        holds += 1;
        leads += usize::from(partition.leader == Some(id));
        lags += usize::from(!partition.in_sync.contains(&id));
        leaving += usize::from(partition.removing.contains(&id));
    }
    let state = match (broker.is_fenced, broker.is_cordoned, holds) {
        (true, _, _) => "does not serve",
        (false, _, _) if broker.is_silent => "does not answer",
        (false, true, 0) => "drained",
        (false, true, _) => "takes no new replicas",
        (false, false, _) => "serves",
    };
    vec![
        ("broker", json!(id)),
        ("state", json!(state)),
        ("address", json!(format!("{}:{}", broker.host, broker.port))),
        ("rack", json!(broker.rack)),
        ("leads", json!(leads)),
        ("holds", json!(holds)),
        ("not_in_sync", json!(lags)),
        ("leaving", json!(leaving)),
    ]
}
