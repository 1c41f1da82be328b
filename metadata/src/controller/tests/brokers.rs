//! Brokers that take no replicas, and brokers of several versions.

use super::*;
use crate::{
    image::record::ConfigRecord,
    model::{Feature, FeatureLevels},
};

fn set(cluster: &mut Cluster, broker: u32, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut decision = Decision::default();
    let key = Key::Config(ConfigResource::Broker(BrokerId(broker)));
    decision.put(&key, crate::image::record::encode(ConfigRecord { settings }));
    cluster.take(decision);
}

fn register(cluster: &mut Cluster, broker: BrokerImage) {
    let mut decision = Decision::default();
    decision.put(&Key::Broker(broker.id), crate::image::record::encode(BrokerRecord::of(&broker)));
    cluster.take(decision);
}

fn hold(cluster: &Cluster, topic: &str) -> Vec<u32> {
    let topic = cluster.image().topic(topic).expect("it was made");
    let mut ids: Vec<u32> = topic.partitions.iter().flat_map(|one| &one.replicas).map(|id| id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn a_broker_whose_log_directories_are_all_cordoned_gets_no_replica() {
    let mut cluster = Cluster::of(&[(1, false), (2, false), (3, false)]);
    set(&mut cluster, 2, &[("cordoned.log.dirs", "*")]);
    assert_eq!(text(&cluster.create(&[spread("a", Some(12), Some(2))])), "created");
    assert_eq!(hold(&cluster, "a"), [1, 3]);
    let refused = text(&cluster.create(&[spread("b", Some(1), Some(3))]));
    assert!(refused.contains("only 2 broker(s) are registered"), "{refused}");
    set(&mut cluster, 1, &[("cordoned.log.dirs", "*")]);
    set(&mut cluster, 3, &[("cordoned.log.dirs", "*")]);
    let refused = text(&cluster.create(&[spread("b", Some(1), Some(1))]));
    assert!(refused.contains("have all their log directories cordoned"), "{refused}");
    // Some of its directories are none of the broker's matter, all of them by name are.
    let dirs = |cordoned: &[&str]| BrokerImage {
        id: BrokerId(3),
        log_dirs: vec!["/a".to_owned(), "/b".to_owned()],
        cordoned_log_dirs: cordoned.iter().map(|dir| (*dir).to_owned()).collect(),
        ..BrokerImage::default()
    };
    set(&mut cluster, 3, &[]);
    for (own, given, is_cordoned) in [
        (&["/a"][..], None, false),
        (&["/a", "/b"], None, true),
        (&[], Some("/b, /a"), true),
        (&["/a", "/b"], Some("/a"), false),
        (&["/a", "/b"], Some(""), false),
    ] {
        register(&mut cluster, dirs(own));
        match given {
            Some(given) => set(&mut cluster, 3, &[("cordoned.log.dirs", given)]),
            None => set(&mut cluster, 3, &[]),
        }
        assert_eq!(cluster.image().is_cordoned(BrokerId(3)), is_cordoned, "{own:?} {given:?}");
    }
}

#[test]
fn a_broker_that_is_forgotten_leaves_no_cordon_to_the_next_of_its_number() {
    let mut cluster = Cluster::of(&[(1, false), (2, true)]);
    set(&mut cluster, 2, &[("cordoned.log.dirs", "*"), ("log.cleaner.threads", "2")]);
    let (result, decision) = unregister_broker(cluster.image(), 2);
    assert_eq!(result, Ok(()));
    cluster.take(decision);
    let left = cluster.image().configs().get(&ConfigResource::Broker(BrokerId(2))).cloned();
    assert_eq!(left, Some(BTreeMap::from([("log.cleaner.threads".to_owned(), "2".to_owned())])));
}

#[test]
fn a_level_is_set_only_if_every_broker_serves_it_also_one_that_is_down() {
    let mut cluster = Cluster::of(&[(1, false)]);
    let name = Feature::TRANSACTION_VERSION.name;
    let update = |cluster: &Cluster, level, direction| {
        let update = FeatureUpdate { name: name.to_owned(), level, direction };
        let (result, decision) = update_features(cluster.image(), &[update], BrokerId(1));
        (result.map_err(|error| error.to_string()), decision)
    };
    let (lowered, decision) = update(&cluster, 1, FeatureMove::SafeDowngrade);
    assert_eq!(lowered, Ok(()));
    cluster.take(decision);
    let older = |features: &[(&str, u16)]| BrokerImage {
        id: BrokerId(2),
        fenced: true,
        features: features
            .iter()
            .map(|(name, max)| ((*name).to_owned(), FeatureLevels { min: 0, max: *max }))
            .collect(),
        ..BrokerImage::default()
    };
    let refused = |cluster: &Cluster| update(cluster, 2, FeatureMove::Upgrade).0.unwrap_err();
    register(&mut cluster, older(&[(name, 1)]));
    assert!(refused(&cluster).ends_with("Broker 2 only supports versions 0-1"), "{}", refused(&cluster));
    register(&mut cluster, older(&[("group.version", 1)]));
    assert!(refused(&cluster).ends_with("Broker 2 does not support this feature."), "{}", refused(&cluster));
    assert_eq!(update(&cluster, 0, FeatureMove::SafeDowngrade).0, Ok(()), "nobody lacks off");
    register(&mut cluster, older(&[(name, 2)]));
    assert_eq!(update(&cluster, 2, FeatureMove::Upgrade).0, Ok(()));
}

#[test]
fn a_broker_that_never_said_what_it_serves_lacks_what_came_after_it() {
    let mut cluster = Cluster::of(&[(1, false), (2, true)]);
    let raised = |cluster: &Cluster, feature: Feature| {
        let update =
            FeatureUpdate { name: feature.name.to_owned(), level: feature.max as i16, direction: FeatureMove::Upgrade };
        update_features(cluster.image(), &[update], BrokerId(1)).0.map_err(|error| error.to_string())
    };
    let says = |id: u32| BrokerImage { id: BrokerId(id), features: Feature::served(), ..BrokerImage::default() };
    register(&mut cluster, says(1));
    for feature in [Feature::SHARE_VERSION, Feature::STREAMS_VERSION] {
        let refused = raised(&cluster, feature).unwrap_err();
        assert!(refused.ends_with("Broker 2 does not support this feature."), "{refused}");
    }
    for feature in [Feature::GROUP_VERSION, Feature::METADATA_VERSION, Feature::TRANSACTION_VERSION] {
        assert_eq!(raised(&cluster, feature), Ok(()), "{} is older than that", feature.name);
    }
    register(&mut cluster, says(2));
    assert_eq!(raised(&cluster, Feature::SHARE_VERSION), Ok(()));
}
