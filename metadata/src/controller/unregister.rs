//! Forgetting a broker (KIP-500's UnregisterBroker).

use super::Decision;
use crate::{
    image::{ClusterImage, record::Key},
    model::BrokerId,
};

/// Why a broker is not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnregisterError {
    /// Nobody knows it.
    #[error("Broker ID {0} is not currently registered")]
    NotRegistered(i32),
    /// It runs: forgotten, it would serve on without anybody finding it.
    #[error("Broker {0} is running; stop it before it is unregistered")]
    Running(BrokerId),
}

/// Forgets the broker with that number.
pub fn unregister_broker(image: &ClusterImage, id: i32) -> (Result<(), UnregisterError>, Decision) {
    let mut decision = Decision::default();
    let known = BrokerId::from_wire(id).and_then(|id| image.brokers().get(&id));
    let result = match known {
        None => Err(UnregisterError::NotRegistered(id)),
        Some(broker) if !broker.fenced => Err(UnregisterError::Running(broker.id)),
        Some(broker) => {
            decision.delete(&Key::Broker(broker.id));
            decision.rewrites.push(Key::Broker(broker.id));
            Ok(())
        }
    };
    (result, decision)
}
