//! Where replicas go: plans for small clusters, one rule each.

use super::{
    plan::{self, *},
    view::{BrokerView, PartitionView, View},
};

fn cluster(brokers: &[i32]) -> View {
    let brokers = brokers.iter().map(|id| (*id, BrokerView::default()));
    View { brokers: brokers.collect(), partitions: Vec::new() }
}

fn partition(index: i32, replicas: &[i32]) -> PartitionView {
    PartitionView {
        topic: "t".to_owned(),
        index,
        leader: replicas.first().copied(),
        replicas: replicas.to_vec(),
        in_sync: replicas.to_vec(),
        min_in_sync: 2.min(replicas.len()),
        ..PartitionView::default()
    }
}

/// The drain of one broker.
fn plan(view: &View, id: i32, lagging: bool) -> Plan {
    plan::plan(view, &[id].into(), Allowed { lagging, ..Allowed::default() })
}

/// Why partitions stay.
fn whys(plan: &Plan) -> Vec<Why> {
    plan.refused.iter().map(|refusal| refusal.why.clone()).collect()
}

fn moves(plan: &Plan) -> Vec<(i32, Vec<i32>)> {
    plan.moves.iter().map(|one| (one.index, one.replicas.clone())).collect()
}

#[test]
fn replicas_go_to_the_emptiest_brokers_and_those_in_sync_lead_by_turns() {
    let mut view = cluster(&[1, 2, 3, 4, 5]);
    view.partitions =
        vec![partition(0, &[1, 2, 3]), partition(1, &[1, 2, 3]), partition(2, &[2, 1, 3]), partition(3, &[4, 2, 3])];
    let plan = plan(&view, 1, false);
    assert_eq!(plan.refused, []);
    assert_eq!(moves(&plan), [(0, vec![3, 2, 5]), (1, vec![2, 3, 4]), (2, vec![2, 3, 5])]);
    assert_eq!(plan.elections, [], "it is preferred itself until its partitions are reassigned");
}

#[test]
fn a_replica_goes_to_a_rack_that_has_none_yet() {
    let mut view = cluster(&[1, 2, 3, 4]);
    for (id, rack) in [(1, "a"), (2, "b"), (3, "b"), (4, "a")] {
        view.brokers.get_mut(&id).unwrap().rack = Some(rack.to_owned());
    }
    view.partitions = vec![partition(0, &[1, 2]), partition(1, &[4, 2]), partition(2, &[4, 3])];
    assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 4])], "although broker 3 holds less");
}

#[test]
fn a_drain_leaves_brokers_enough_or_does_not_begin() {
    let mut view = cluster(&[1, 2, 3]);
    view.partitions = vec![partition(0, &[1, 2, 3]), partition(1, &[1, 2])];
    let plan_now = plan(&view, 1, true);
    assert_eq!(moves(&plan_now), [(1, vec![2, 3])]);
    assert_eq!(whys(&plan_now), [Why::TooFewBrokers { replicas: 3, left: 2, out: vec![] }]);
    view.partitions.remove(0);
    let cordoned = BrokerView { is_cordoned: true, ..Default::default() };
    for (cannot, out) in [
        (BrokerView { is_fenced: true, ..Default::default() }, LeftOut::Fenced(3)),
        (BrokerView { is_silent: true, ..cordoned.clone() }, LeftOut::Silent(3)),
        (cordoned, LeftOut::Cordoned(3)),
    ] {
        view.brokers.insert(3, cannot);
        assert_eq!(whys(&plan(&view, 1, true)), [Why::TooFewBrokers { replicas: 2, left: 1, out: vec![out] }]);
    }
    let said = plan(&view, 1, true).refused[0].to_string();
    assert!(said.starts_with("t-1 has 2 replicas, and only 1 brokers are left"), "{said}");
    assert!(said.contains("; broker 3 takes none: it is drained too, or was"), "{said}");
}

#[test]
fn a_partition_that_lacks_replicas_already_is_left_alone() {
    let mut view = cluster(&[1, 2, 3, 4]);
    view.partitions = vec![PartitionView { in_sync: vec![1, 2], ..partition(0, &[1, 2, 3]) }];
    let lagging = Why::UnderReplicated { lagging: vec![3] };
    let refusal = Refusal { partition: "t-0".to_owned(), held_by: vec![1], why: lagging };
    assert_eq!(plan(&view, 1, false).refused, [refusal]);
    assert_eq!(moves(&plan(&view, 1, true)), [(0, vec![2, 3, 4])]);
    view.partitions[0].min_in_sync = 3;
    assert_eq!(whys(&plan(&view, 1, true)), [Why::TooFewInSync { in_sync: 2, min: 3 }], "whatever is allowed");
    view.partitions[0] = PartitionView { leader: None, in_sync: vec![], ..partition(0, &[1, 2, 3]) };
    assert_eq!(whys(&plan(&view, 1, true)), [Why::NoLeader]);
}

#[test]
fn a_broker_that_is_down_is_drained_from_those_that_are_in_sync() {
    let mut view = cluster(&[1, 2, 3, 4]);
    view.brokers.get_mut(&1).unwrap().is_fenced = true;
    view.partitions = vec![PartitionView { leader: Some(2), in_sync: vec![2, 3], ..partition(0, &[1, 2, 3]) }];
    assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 3, 4])]);
}

#[test]
fn what_is_under_way_goes_on_and_is_planned_anew_when_its_target_is_gone() {
    let mut view = cluster(&[1, 2, 3, 4, 5]);
    let moving = PartitionView {
        replicas: vec![2, 3, 4, 1],
        in_sync: vec![1, 2, 3],
        leader: Some(1),
        adding: vec![4],
        removing: vec![1],
        ..partition(0, &[1, 2, 3])
    };
    view.partitions = vec![moving];
    let under_way = plan(&view, 1, false);
    assert_eq!((under_way.under_way, under_way.moves.len(), under_way.refused.len()), (1, 0, 0));
    assert_eq!(under_way.elections, [("t".to_owned(), 0)]);
    view.brokers.get_mut(&4).unwrap().is_fenced = true;
    assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 3, 5])]);
}

#[test]
fn what_somebody_moves_to_the_broker_is_for_somebody_to_cancel() {
    let mut view = cluster(&[1, 2, 3]);
    view.partitions =
        vec![PartitionView { replicas: vec![1, 2], adding: vec![1], in_sync: vec![2], ..partition(0, &[2]) }];
    assert_eq!(whys(&plan(&view, 1, true)), [Why::MovesHere(1)]);
}

#[test]
fn a_partition_of_one_replica_moves_to_a_newcomer() {
    let mut view = cluster(&[1, 2]);
    view.partitions = vec![partition(0, &[1])];
    assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2])]);
}

/// The drain of several brokers.
fn plan_all(view: &View, leaving: &[i32]) -> Plan {
    plan::plan(view, &leaving.iter().copied().collect(), Allowed::default())
}

#[test]
fn several_brokers_are_drained_as_one_and_nothing_goes_from_one_to_another() {
    // By itself each of them would send something to the other one, which holds least.
    let mut view = cluster(&[1, 2, 3, 4, 5, 6]);
    view.partitions =
        vec![partition(0, &[1, 3, 4]), partition(1, &[3, 4, 1]), partition(2, &[3, 1, 2]), partition(3, &[4, 5, 6])];
    assert!(moves(&plan(&view, 1, false)).iter().any(|(_, replicas)| replicas.contains(&2)));
    let both = plan_all(&view, &[1, 2]);
    assert_eq!(both.refused, []);
    assert_eq!(moves(&both), [(0, vec![4, 3, 5]), (1, vec![3, 4, 6]), (2, vec![3, 5, 6])]);
}

#[test]
fn a_partition_that_two_of_them_hold_leaves_both_in_one_move_and_is_led_by_one_that_stays() {
    let mut view = cluster(&[1, 2, 3, 4, 5]);
    view.partitions = vec![partition(0, &[1, 2, 3]), partition(1, &[2, 1])];
    let both = plan_all(&view, &[1, 2]);
    assert_eq!(moves(&both), [(0, vec![3, 4, 5]), (1, vec![3, 4])]);
    let asked = PartitionView { replicas: vec![3, 4, 5, 1, 2], ..view.partitions[0].clone() };
    assert!(can_elect(&asked, &[1, 2].into()));
    let one_leaves_too = PartitionView { replicas: vec![2, 3, 4, 5, 1], ..view.partitions[0].clone() };
    assert!(!can_elect(&one_leaves_too, &[1, 2].into()), "it would lead for a moment");
}

#[test]
fn brokers_of_which_each_could_leave_may_not_leave_together() {
    let mut view = cluster(&[1, 2, 3, 4]);
    view.partitions = vec![partition(0, &[1, 2, 3])];
    assert_eq!((whys(&plan(&view, 1, false)), whys(&plan(&view, 2, false))), (vec![], vec![]));
    let both = plan_all(&view, &[1, 2]);
    assert_eq!(both.refused[0].held_by, [1, 2]);
    assert_eq!(whys(&both), [Why::TooFewBrokers { replicas: 3, left: 2, out: vec![] }]);
    // The same, asked for one after the other: what the first one holds yet has to go somewhere too.
    view.brokers.get_mut(&1).unwrap().is_cordoned = true;
    let second = whys(&plan(&view, 2, false));
    assert_eq!(second, [Why::TooFewBrokers { replicas: 3, left: 2, out: vec![LeftOut::Cordoned(1)] }]);
    let stays = Allowed { cordoned: true, ..Allowed::default() };
    assert_eq!(moves(&plan::plan(&view, &[2].into(), stays)), [(0, vec![1, 3, 4])]);
    assert!(second[0].is_for_want_of_brokers());
}

#[test]
fn what_goes_from_one_drained_broker_to_another_is_sent_elsewhere() {
    let mut view = cluster(&[1, 2, 3, 4, 5]);
    let moving = PartitionView {
        replicas: vec![3, 4, 2, 1],
        in_sync: vec![1, 3, 4],
        adding: vec![2],
        removing: vec![1],
        ..partition(0, &[1, 3, 4])
    };
    view.partitions = vec![moving];
    // Begun for 1 alone, taken up for both.
    assert_eq!(moves(&plan_all(&view, &[1, 2])), [(0, vec![3, 4, 5])]);
    // The first is another command's.
    assert_eq!(whys(&plan(&view, 2, false)), [Why::MovesHere(2)], "somebody asked for it by name");
    view.brokers.get_mut(&1).unwrap().is_cordoned = true;
    assert_eq!(moves(&plan(&view, 2, false)), [(0, vec![3, 4, 5])]);
    // And the first takes it for what it is: on its way, to a broker that stays.
    view.partitions[0] = PartitionView { replicas: vec![3, 4, 5, 1], adding: vec![5], ..view.partitions[0].clone() };
    view.brokers.get_mut(&2).unwrap().is_cordoned = true;
    assert_eq!((plan(&view, 1, false).under_way, moves(&plan(&view, 1, false))), (1, vec![]));
}

#[test]
fn a_partition_does_not_end_in_fewer_racks_than_it_was_in_unless_that_is_allowed() {
    let mut view = cluster(&[1, 2, 3, 4, 5]);
    for (id, rack) in [(1, "a"), (2, "b"), (3, "b"), (4, "c"), (5, "c")] {
        view.brokers.get_mut(&id).unwrap().rack = Some(rack.to_owned());
    }
    view.partitions = vec![partition(0, &[1, 2, 4])];
    assert_eq!(moves(&plan(&view, 2, false)), [(0, vec![1, 4, 3])], "another one of its rack");
    let refused = plan_all(&view, &[1, 2]);
    let said = refused.refused[0].to_string();
    assert!(said.contains(r#"["a", "b", "c"], and the brokers that are left would hold it in ["b", "c"]"#), "{said}");
    assert!(refused.moves.is_empty() && refused.refused[0].why.is_for_want_of_brokers(), "{said}");
    let allowed = Allowed { fewer_racks: true, ..Allowed::default() };
    assert_eq!(moves(&plan::plan(&view, &[1, 2].into(), allowed)), [(0, vec![4, 3, 5])]);
    // Its rack is gone with it, whoever has it.
    view.brokers.get_mut(&1).unwrap().is_fenced = true;
    view.partitions[0] = PartitionView { leader: Some(2), in_sync: vec![2, 4], ..partition(0, &[1, 2, 4]) };
    assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 4, 3])]);
}

#[test]
fn two_drains_at_once_after_which_there_would_be_racks_too_few_are_seen_as_such() {
    let mut view = cluster(&[1, 2, 3, 4, 5]);
    for (id, rack) in [(1, "a"), (2, "b"), (5, "c"), (3, "d"), (4, "d")] {
        view.brokers.get_mut(&id).unwrap().rack = Some(rack.to_owned());
    }
    view.partitions = vec![partition(0, &[1, 2, 5])];
    assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 5, 3])]);
    assert_eq!(moves(&plan(&view, 2, false)), [(0, vec![1, 5, 3])]);
    // Each could leave. The other one, whichever it is, has been told meanwhile.
    for (id, other) in [(1, 2), (2, 1)] {
        let mut view = view.clone();
        view.brokers.get_mut(&other).unwrap().is_cordoned = true;
        let refused = plan(&view, id, false).refused;
        let said = refused[0].to_string();
        assert!(refused[0].why.is_for_want_of_brokers() && said.contains(r#"in ["c", "d"] alone"#), "{said}");
        assert!(said.contains(&format!("broker {other} takes none")), "{said}");
        let stays = Allowed { cordoned: true, ..Allowed::default() };
        assert_eq!(moves(&plan::plan(&view, &[id].into(), stays)), [(0, vec![other, 5, 3])]);
    }
}
