//! Forgetting a broker (KIP-500's UnregisterBroker).

use super::Decision;
use crate::{
    image::{
        CORDONED_LOG_DIRS, ClusterImage, ConfigResource,
        record::{self, ConfigRecord, Key},
    },
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
            uncordon(image, broker.id, &mut decision);
            Ok(())
        }
    };
    (result, decision)
}

/// The next broker of this number is another one: that the last one was drained must not keep replicas from it.
fn uncordon(image: &ClusterImage, id: BrokerId, decision: &mut Decision) {
    let resource = ConfigResource::Broker(id);
    let Some(given) = image.configs().get(&resource).filter(|given| given.contains_key(CORDONED_LOG_DIRS)) else {
        return;
    };
    let mut settings = given.clone();
    settings.remove(CORDONED_LOG_DIRS);
    let key = Key::Config(resource);
    match settings.is_empty() {
        true => decision.delete(&key),
        false => decision.put(&key, record::encode(ConfigRecord { settings })),
    }
    decision.rewrites.push(key);
}
