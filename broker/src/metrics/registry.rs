//! Where metrics are registered, and what each of them says of itself.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    Encoder, TextEncoder,
    core::Collector,
    proto::{MetricFamily, MetricType},
};

/// A registry that also remembers what was declared: a family with labels shows itself to a scrape only once it has a value.
/// Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    inner: prometheus::Registry,
    declared: Arc<Mutex<Vec<Declared>>>,
}

/// What a family of metrics says of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The labels of each of its values, constant ones first.
    pub labels: Vec<String>,
    /// What it means, with its unit.
    pub help: String,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Adds one or several families.
    ///
    /// # Errors
    /// If one of that name, or with other labels or help, is there already.
    pub fn register(&self, collector: Box<dyn Collector>) -> prometheus::Result<()> {
        let kinds = collector.collect();
        let declared: Vec<Declared> = collector
            .desc()
            .into_iter()
            .map(|desc| {
                let family = kinds.iter().find(|family| family.name() == desc.fq_name);
                let constant = desc.const_label_pairs.iter().map(|pair| pair.name().to_owned());
                Declared {
                    name: desc.fq_name.clone(),
                    kind: family.map_or("untyped", |family| kind(family.get_field_type())),
                    labels: constant.chain(desc.variable_labels.iter().cloned()).collect(),
                    help: desc.help.clone(),
                }
            })
            .collect();
        self.inner.register(collector)?;
        self.declared.lock().extend(declared);
        Ok(())
    }

    /// The values of all families that have one.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.inner.gather()
    }

    /// The same in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        // The encoder fails on a family without a name or values, which a registry does not give out.
        if let Err(error) = TextEncoder::new().encode(&self.gather(), &mut out) {
            tracing::error!(%error, "metrics cannot be printed");
        }
        String::from_utf8(out).unwrap_or_default()
    }

    /// All families that were registered, by name.
    pub fn declared(&self) -> Vec<Declared> {
        let mut declared = self.declared.lock().clone();
        declared.sort();
        declared
    }
}

fn kind(of: MetricType) -> &'static str {
    match of {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

    use super::*;

    #[test]
    fn a_family_without_values_is_declared_all_the_same() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("varve_a_total", "As."), &["of"]).unwrap();
        let seconds = HistogramVec::new(HistogramOpts::new("varve_b_seconds", "Bs."), &["of", "at"]).unwrap();
        registry.register(Box::new(seconds)).unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        assert!(registry.gather().is_empty());
        let [a, b] = &registry.declared()[..] else { panic!("two families") };
        assert_eq!((a.name.as_str(), a.kind, a.labels.join(",")), ("varve_a_total", "counter", "of".to_owned()));
        assert_eq!((b.name.as_str(), b.kind, b.labels.join(",")), ("varve_b_seconds", "histogram", "of,at".to_owned()));
        assert!(registry.register(Box::new(counter)).is_err(), "each name is declared once");
        assert_eq!(registry.declared().len(), 2);
    }
}
