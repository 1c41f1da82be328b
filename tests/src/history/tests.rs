//! The checker finds nothing in what a correct log does, and each kind of damage.

use std::{collections::BTreeMap, ops::Range};

use proptest::{collection::vec, prelude::*};

use super::{Event, Fault, History, Place, RecordId, Span, Written, check};

/// What happens next to a log that keeps its promises.
#[derive(Clone, Debug)]
enum Step {
    Write { writer: u32, partition: i32, count: u64, answer: Answer },
    Read { group: bool, partition: i32, most: usize },
    Commit { partition: i32, answered: bool },
    Ask { partition: i32 },
    Rebalance { members: usize },
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Acknowledged,
    LostThoughWritten,
    LostAndNotWritten,
    Refused,
}

/// A correct log with one group, and what its clients saw.
#[derive(Default)]
struct Model {
    history: History,
    clock: u64,
    /// How far each writer has counted in each partition.
    counts: BTreeMap<(u32, i32), u64>,
    /// Where the group reads on, and what is committed.
    position: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    generation: i32,
}

fn place(partition: i32) -> Place {
    Place { topic: "t".to_owned(), partition }
}

impl Model {
    fn of(steps: &[Step]) -> Model {
        let mut model = Model::default();
        steps.iter().for_each(|step| model.take(step));
        model
    }

    /// The next moment.
    fn span(&mut self) -> Span {
        self.clock += 2;
        Span { began: self.clock, ended: self.clock + 1 }
    }

    fn take(&mut self, step: &Step) {
        let span = self.span();
        let event = match *step {
            Step::Write { writer, partition, count, answer } => {
                let counted = self.counts.entry((writer, partition)).or_default();
                let numbers = *counted..*counted + count;
                *counted += count;
                let contents = self.history.log.entry(place(partition)).or_default();
                let base = contents.records.last().map_or(0, |(offset, _)| offset + 1);
                if matches!(answer, Answer::Acknowledged | Answer::LostThoughWritten) {
                    let ids = numbers.clone().map(|number| RecordId { writer, number });
                    contents.records.extend((base..).zip(ids));
                }
                let written = match answer {
                    Answer::Acknowledged => Written::At(base),
                    Answer::LostThoughWritten | Answer::LostAndNotWritten => Written::Unknown,
                    Answer::Refused => Written::Refused,
                };
                Event::Write { place: place(partition), writer, numbers, written, span }
            }
            Step::Read { group, partition, most } => {
                let from = if group { self.position.get(&partition).copied().unwrap_or(0) } else { 0 };
                let contents = self.history.log.entry(place(partition)).or_default();
                let records = contents.records.iter().filter(|(offset, _)| *offset >= from).take(most);
                let records: Vec<_> = records.copied().collect();
                if let (true, Some((last, _))) = (group, records.last()) {
                    self.position.insert(partition, last + 1);
                }
                let group = group.then(|| "g".to_owned());
                Event::Read { place: place(partition), group, from, records, span }
            }
            Step::Commit { partition, answered } => {
                let Some(offset) = self.position.get(&partition).copied() else { return };
                self.committed.insert(partition, offset);
                Event::Commit { group: "g".to_owned(), place: place(partition), offset, acknowledged: answered, span }
            }
            Step::Ask { partition } => {
                let offset = self.committed.get(&partition).copied();
                Event::Committed { group: "g".to_owned(), place: place(partition), offset, span }
            }
            Step::Rebalance { members } => {
                self.generation += 1;
                for member in 0..members {
                    let places =
                        (0..3).filter(|partition| *partition as usize % members == member).map(place).collect();
                    let (group, member) = ("g".to_owned(), format!("m{member}"));
                    let generation = self.generation;
                    self.history.events.push(Event::Assigned { group, generation, member, places, span });
                }
                // Members go on where they committed.
                self.position = self.committed.clone();
                return;
            }
        };
        self.history.events.push(event);
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        4 => Just(Answer::Acknowledged),
        1 => Just(Answer::LostThoughWritten),
        1 => Just(Answer::LostAndNotWritten),
        1 => Just(Answer::Refused),
    ];
    prop_oneof![
        4 => (0..3u32, 0..3i32, 1..4u64, answer)
            .prop_map(|(writer, partition, count, answer)| Step::Write { writer, partition, count, answer }),
        3 => (any::<bool>(), 0..3i32, 0..5usize)
            .prop_map(|(group, partition, most)| Step::Read { group, partition, most }),
        2 => (0..3i32, any::<bool>()).prop_map(|(partition, answered)| Step::Commit { partition, answered }),
        1 => (0..3i32).prop_map(|partition| Step::Ask { partition }),
        1 => (1..3usize).prop_map(|members| Step::Rebalance { members }),
    ]
}

/// Acknowledged records, with their places and offsets.
fn acknowledged(history: &History) -> Vec<(Place, i64, RecordId)> {
    let mut found = Vec::new();
    for event in &history.events {
        if let Event::Write { place, writer, numbers, written: Written::At(base), .. } = event {
            let ids = numbers.clone().map(|number| RecordId { writer: *writer, number });
            found.extend((*base..).zip(ids).map(|(offset, record)| (place.clone(), offset, record)));
        }
    }
    found
}

proptest! {
    #[test]
    fn nothing_is_found_in_what_a_correct_log_does(steps in vec(any_step(), 0..60)) {
        prop_assert_eq!(check(&Model::of(&steps).history), vec![]);
    }

    #[test]
    fn an_acknowledged_record_that_is_gone_is_lost(steps in vec(any_step(), 1..60), which in any::<prop::sample::Index>()) {
        let mut history = Model::of(&steps).history;
        let all = acknowledged(&history);
        prop_assume!(!all.is_empty());
        let (place, offset, record) = which.get(&all).clone();
        history.log.get_mut(&place).expect("it was written there").records.retain(|(at, _)| *at != offset);
        let lost = Fault::Lost { place, offset, record, found: None };
        prop_assert!(check(&history).contains(&lost));
    }

    #[test]
    fn an_acknowledged_record_in_another_place_is_lost_and_changed_for_its_readers(
        steps in vec(any_step(), 1..60), which in any::<prop::sample::Index>()
    ) {
        let mut history = Model::of(&steps).history;
        let all = acknowledged(&history);
        prop_assume!(!all.is_empty());
        let (place, offset, record) = which.get(&all).clone();
        let records = &mut history.log.get_mut(&place).expect("it was written there").records;
        let stranger = RecordId { writer: 77, number: 0 };
        records.iter_mut().find(|(at, _)| *at == offset).expect("it lies there").1 = stranger;
        let faults = check(&history);
        let lost = Fault::Lost { place: place.clone(), offset, record, found: Some(stranger) };
        let invented = Fault::Invented { place: place.clone(), offset, record: stranger };
        prop_assert!(faults.contains(&lost) && faults.contains(&invented), "{:?}", faults);
        let was_read = history.events.iter().any(|event| {
            matches!(event, Event::Read { place: at, records, .. } if *at == place && records.contains(&(offset, record)))
        });
        let changed = Fault::Changed { place, offset, read: record, found: Some(stranger) };
        prop_assert_eq!(faults.contains(&changed), was_read);
    }

    #[test]
    fn a_record_that_comes_twice_is_found(steps in vec(any_step(), 1..60), which in any::<prop::sample::Index>()) {
        let mut history = Model::of(&steps).history;
        let all = acknowledged(&history);
        prop_assume!(!all.is_empty());
        let (place, offset, record) = which.get(&all).clone();
        let records = &mut history.log.get_mut(&place).expect("it was written there").records;
        let end = records.last().expect("there is one").0 + 1;
        records.push((end, record));
        let twice = Fault::Duplicated { place, record, offsets: [offset, end] };
        prop_assert!(check(&history).contains(&twice));
    }

    #[test]
    fn an_acknowledged_commit_that_is_not_found_went_back(steps in vec(any_step(), 1..60)) {
        let mut model = Model::of(&steps);
        let acknowledged = model.history.events.iter().rev().find_map(|event| match event {
            Event::Commit { group, place, offset, acknowledged: true, .. } => Some((group.clone(), place.clone(), *offset)),
            _ => None,
        });
        prop_assume!(acknowledged.is_some());
        let (group, place, before) = acknowledged.expect("just looked");
        let span = model.span();
        model.history.events.push(Event::Committed { group: group.clone(), place: place.clone(), offset: None, span });
        let faults = check(&model.history);
        let is_found = faults.iter().any(|fault| {
            matches!(fault, Fault::WentBack { place: at, found: None, before: was, .. } if *at == place && *was >= before)
        });
        prop_assert!(is_found, "{:?}", faults);
    }
}

/// A history of two writes to one partition, with what is in the log.
fn two_writes(first: (Range<u64>, Written, Span), then: (Range<u64>, Written, Span), log: &[(i64, u64)]) -> History {
    let write = |(numbers, written, span): (Range<u64>, Written, Span)| Event::Write {
        place: place(0),
        writer: 1,
        numbers,
        written,
        span,
    };
    let mut history = History { events: vec![write(first), write(then)], ..History::default() };
    let records = log.iter().map(|(offset, number)| (*offset, RecordId { writer: 1, number: *number }));
    history.log.entry(place(0)).or_default().records = records.collect();
    history
}

fn span(began: u64, ended: u64) -> Span {
    Span { began, ended }
}

#[test]
fn a_writers_records_in_another_order_are_reordered() {
    let history =
        two_writes((0..1, Written::Unknown, span(0, 9)), (1..2, Written::Unknown, span(1, 8)), &[(0, 1), (1, 0)]);
    let (first, then) = (RecordId { writer: 1, number: 1 }, RecordId { writer: 1, number: 0 });
    assert_eq!(check(&history), [Fault::Reordered { place: place(0), first, then }]);
}

#[test]
fn a_write_is_overtaken_only_by_one_that_began_after_its_answer() {
    let of = |then: Span| {
        let mut history = two_writes((0..1, Written::At(1), span(0, 1)), (1..2, Written::At(0), then), &[]);
        let records = &mut history.log.entry(place(0)).or_default().records;
        *records = vec![(0, RecordId { writer: 1, number: 1 }), (1, RecordId { writer: 1, number: 0 })];
        check(&history).into_iter().filter(|fault| matches!(fault, Fault::Overtaken { .. })).count()
    };
    assert_eq!((of(span(1, 3)), of(span(2, 3))), (0, 1));
}

#[test]
fn a_read_that_leaves_a_record_out_skipped_it() {
    let mut history =
        two_writes((0..2, Written::At(0), span(0, 1)), (2..3, Written::At(2), span(2, 3)), &[(0, 0), (1, 1), (2, 2)]);
    let records = vec![(0, RecordId { writer: 1, number: 0 }), (2, RecordId { writer: 1, number: 2 })];
    history.events.push(Event::Read { place: place(0), group: None, from: 0, records, span: span(4, 5) });
    assert_eq!(check(&history), [Fault::Skipped { place: place(0), from: 0, left_out: 1 }]);
}

#[test]
fn a_commit_of_what_nobody_read_is_unread() {
    let mut history =
        two_writes((0..2, Written::At(0), span(0, 1)), (2..3, Written::At(2), span(2, 3)), &[(0, 0), (1, 1), (2, 2)]);
    let group = || "g".to_owned();
    let records = vec![(0, RecordId { writer: 1, number: 0 })];
    history.events.push(Event::Read { place: place(0), group: Some(group()), from: 0, records, span: span(4, 5) });
    let commit = |offset, span| Event::Commit { group: group(), place: place(0), offset, acknowledged: true, span };
    history.events.push(commit(1, span(6, 7)));
    assert_eq!(check(&history), []);
    history.events.push(commit(3, span(8, 9)));
    assert_eq!(check(&history), [Fault::Unread { group: group(), place: place(0), committed: 3, unread: 1 }]);
}

#[test]
fn an_offset_that_nobody_committed_is_found_out() {
    let committed = Event::Committed { group: "g".to_owned(), place: place(0), offset: Some(4), span: span(0, 1) };
    let history = History { events: vec![committed], ..History::default() };
    assert_eq!(check(&history), [Fault::NeverCommitted { group: "g".to_owned(), place: place(0), offset: 4 }]);
}

#[test]
fn one_owner_for_a_partition_of_a_generation_and_no_generation_comes_back() {
    let assigned = |generation, member: &str, span| Event::Assigned {
        group: "g".to_owned(),
        generation,
        member: member.to_owned(),
        places: vec![place(0)],
        span,
    };
    let faults = |events| check(&History { events, ..History::default() });
    assert_eq!(faults(vec![assigned(1, "a", span(0, 1)), assigned(2, "b", span(2, 3))]), []);
    let members = ["a".to_owned(), "b".to_owned()];
    assert_eq!(
        faults(vec![assigned(1, "a", span(0, 1)), assigned(1, "b", span(0, 1))]),
        [Fault::Shared { group: "g".to_owned(), generation: 1, place: place(0), members }]
    );
    assert_eq!(
        faults(vec![assigned(2, "a", span(0, 1)), assigned(1, "b", span(2, 3))]),
        [Fault::OldGeneration { group: "g".to_owned(), generation: 1, before: 2 }]
    );
}
