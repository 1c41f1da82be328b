//! What the server counts, with each API's histogram looked up once and not with every request.

use std::{collections::BTreeMap, time::Duration};

use prometheus::{Histogram, IntGauge};

use super::{connection::Closed, dispatch::DispatchError};
use crate::{
    metrics::{ConnectionMetrics, Metrics, RequestMetrics},
    wire::{api::SERVED, frame::FrameError, key::ApiKey},
};

/// The server's counters.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) connections: ConnectionMetrics,
    pub(super) requests: RequestMetrics,
    apis: BTreeMap<i16, Api>,
}

/// What is counted of one API.
#[derive(Debug)]
struct Api {
    seconds: Histogram,
    under_way: IntGauge,
}

/// A request that is not answered yet; until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(Option<&'a IntGauge>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(gauge) = self.0 {
            gauge.dec();
        }
    }
}

impl Measured {
    pub(super) fn new(metrics: &Metrics) -> Measured {
        let api = |key: ApiKey| {
            let name = format!("{key:?}");
            Api { seconds: metrics.requests.seconds_of(&name), under_way: metrics.requests.under_way_of(&name) }
        };
        Measured {
            connections: metrics.connections.clone(),
            requests: metrics.requests.clone(),
            apis: SERVED.iter().map(|served| (served.key as i16, api(served.key))).collect(),
        }
    }

    /// A request is being looked at.
    pub(super) fn begins(&self, key: ApiKey) -> UnderWay<'_> {
        let gauge = self.apis.get(&(key as i16)).map(|api| &api.under_way);
        gauge.inspect(|gauge| gauge.inc());
        UnderWay(gauge)
    }

    pub(super) fn answered(&self, key: ApiKey, took: Duration) {
        if let Some(api) = self.apis.get(&(key as i16)) {
            api.seconds.observe(took.as_secs_f64());
        }
    }

    /// A connection was closed by the node and not by its client.
    pub(super) fn closed(&self, reason: &Closed) {
        let label = match reason {
            // None of them is a failed request: nobody asked anything.
            Closed::Idle
            | Closed::Silent
            | Closed::Stalled
            | Closed::Io(_)
            | Closed::Unwelcome(_)
            | Closed::SessionOver => return,
            Closed::Refused(refused) => match refused {
                DispatchError::Frame(FrameError::Version { .. }) => "version",
                DispatchError::Frame(_) => "frame",
                DispatchError::Shape { .. } | DispatchError::Decode { .. } => "malformed",
                DispatchError::Encode(_) | DispatchError::Records(_) => "answer",
                DispatchError::Unanswerable => "acks_0",
                DispatchError::Panic { .. } => "panic",
            },
        };
        self.requests.failed(label);
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

    use crate::server::{Limits, testing::TestNode};

    #[tokio::test]
    async fn requests_connections_and_sizes_are_counted() {
        let limits = Limits { connections: 1, ..Limits::default() };
        let node = TestNode::start_with(limits).await;
        node.create_topic("logs", 2, &[]).await;
        let mut client = node.connect().await;
        for _ in 0..2 {
            client.ask(0, &ApiVersionsRequest::default()).await;
        }
        client.ask(1, &MetadataRequest::default()).await;
        // Held by the operating system until there is a place.
        let mut waiting = node.connect().await;
        waiting.send(0, &ApiVersionsRequest::default()).await;
        let text = node.metrics.text();
        for line in [
            "varve_request_seconds_count{api=\"ApiVersions\"} 2",
            "varve_request_seconds_count{api=\"Metadata\"} 1",
            "varve_request_seconds_count{api=\"Produce\"} 0",
            "varve_requests_under_way{api=\"Metadata\"} 0",
            "varve_connections 1",
            "varve_connections_refused_total{limit=\"total\"} 1",
            "varve_partitions 2",
            "varve_local_log_bytes{topic=\"logs\"} 0",
            "varve_offline_partitions 0",
            "varve_disk_free_bytes{dir=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(client);
        assert!(waiting.receive_raw().await.is_some());
        assert!(!text.contains("varve_sent_bytes_total 0\n") && !text.contains("varve_received_bytes_total 0\n"));
    }

    #[tokio::test]
    async fn an_address_may_have_a_limit_of_its_own() {
        let own = std::collections::HashMap::from([(std::net::IpAddr::from([127, 0, 0, 1]), 1)]);
        let limits = Limits { connections_per_ip_overrides: own, ..Limits::default() };
        let node = TestNode::start_with(limits).await;
        let mut first = node.connect().await;
        first.ask(0, &ApiVersionsRequest::default()).await;
        assert_eq!(node.connect().await.receive_raw().await, None);
        assert!(node.metrics.text().contains("varve_connections_refused_total{limit=\"address\"} 1"));
    }

    #[tokio::test]
    async fn a_request_that_is_no_request_is_counted_by_its_reason() {
        let node = TestNode::start().await;
        let mut client = node.connect().await;
        client.send_raw(&[0, 0, 0, 11, 0, 0, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0]).await;
        assert_eq!(client.receive_raw().await, None);
        assert!(
            node.metrics.text().contains("varve_request_failures_total{reason=\"version\"} 1"),
            "{}",
            node.metrics.text()
        );
    }
}
