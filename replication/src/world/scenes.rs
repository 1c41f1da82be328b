//! Courses of events that chance takes too seldom, written down.

use varve_metadata::model::BrokerId;

use super::{Action, Break, Budget, Violation, World};

const ONE: BrokerId = BrokerId(0);
const TWO: BrokerId = BrokerId(1);
const THREE: BrokerId = BrokerId(2);

/// A course, and the rule without which it ends badly.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) broken: Break,
    play: fn(Option<Break>) -> Result<(), Violation>,
}

impl Scene {
    pub(crate) const ALL: [Scene; 7] = [
        Scene {
            name: "a replica starts over that knows the archive from before, and comes to lead",
            broken: Break::StartsOverWithoutEpochs,
            play: starts_over,
        },
        Scene {
            name: "a leader looks at the archive that has not heard of its successor",
            broken: Break::LooksBehindItsSuccessor,
            play: looks_late,
        },
        Scene {
            name: "the replicas of a backup are all there, and fell behind one that was added since",
            broken: Break::RecoversBeforeAllHaveLooked,
            play: starts_last,
        },
        Scene {
            name: "a replica of a backup loses what it has told of, and is let in again before the others have told",
            broken: Break::KeepsWhatWasTold,
            play: loses_what_it_told,
        },
        Scene {
            name: "an unclean election makes a leader of who lacks what is archived, and it goes on beyond that",
            broken: Break::ArchivesBehindOtherRecords,
            play: goes_on_beyond_the_archive,
        },
        Scene {
            name: "an election between an operator's look at a parted archive and the decision, and the leader that it was parted from",
            broken: Break::ArchivesBehindWhatWasSetAside,
            play: leads_again_before_the_decision,
        },
        Scene {
            name: "a compactor sleeps while another one compacts the same objects by key",
            broken: Break::ReplacesWhateverLiesThere,
            play: publishes_late,
        },
    ];

    /// # Errors
    /// What is wrong at some moment of it, or in the end.
    pub(crate) fn play(&self, broken: Option<Break>) -> Result<(), Violation> {
        (self.play)(broken)
    }
}

/// What the next leader has on its disk begins behind all records, of whose last epoch the archive has not told it yet; another replica
/// in sync has them all.
fn starts_over(broken: Option<Break>) -> Result<(), Violation> {
    let budget = Budget { appends: 2, drops: 2, asides: 1, preferred: 1, crashes: 1, ..Budget::NONE };
    let mut world = World::new(3, 1, budget, broken).archived();
    let all = [ONE, TWO, THREE];
    world.take(Action::Append(ONE))?;
    world.settle(&all, |_| true)?;
    // It leads again, in another epoch.
    world.take(Action::Aside(ONE))?;
    world.settle(&all, |action| action != Action::Return(ONE))?;
    world.take(Action::Return(ONE))?;
    world.settle(&all, |_| true)?;
    world.take(Action::Prefer)?;
    world.settle(&all, |_| true)?;
    // The second one lags, and nothing tells it of the archive any more.
    let tells_nothing = |action| !matches!(action, Action::Learn(_) | Action::Archive(TWO));
    world.take(Action::Append(ONE))?;
    world.settle(&[ONE, THREE], tells_nothing)?;
    world.take(Action::DropLocal(ONE))?;
    world.take(Action::DropLocal(ONE))?;
    world.settle(&all, tells_nothing)?;
    world.take(Action::Crash(ONE))?;
    world.take(Action::Fence(ONE))?;
    world.settle(&[TWO, THREE], tells_nothing)?;
    world.heal()
}

fn looks_late(broken: Option<Break>) -> Result<(), Violation> {
    let budget = Budget { appends: 2, false_alarms: 1, ..Budget::NONE };
    let mut world = World::new(2, 1, budget, broken).archived();
    world.take(Action::Fence(ONE))?;
    world.settle(&[TWO], |_| true)?;
    world.take(Action::Append(TWO))?;
    world.take(Action::Append(TWO))?;
    world.settle(&[TWO], |_| true)?;
    world.take(Action::Archive(ONE))?;
    world.heal()
}

fn starts_last(broken: Option<Break>) -> Result<(), Violation> {
    let budget = Budget { appends: 1, moves: 1, crashes: 1, put_backs: 1, ..Budget::NONE };
    let mut world = World::new(2, 1, budget, broken).held_by_first(1);
    world.take(Action::BackUp)?;
    world.take(Action::Reassign(0b11))?;
    world.settle(&[ONE, TWO], |_| true)?;
    world.take(Action::Crash(ONE))?;
    world.take(Action::Fence(ONE))?;
    world.settle(&[TWO], |_| true)?;
    world.take(Action::Append(TWO))?;
    world.settle(&[TWO], |_| true)?;
    world.take(Action::PutBack)?;
    world.settle(&[ONE], |_| true)?;
    world.heal()
}

/// The preferred replica counts as one that has everything, and has nothing.
fn loses_what_it_told(broken: Option<Break>) -> Result<(), Violation> {
    let budget = Budget { appends: 1, power_cuts: 1, put_backs: 1, ..Budget::NONE };
    let mut world = World::new(2, 1, budget, broken);
    world.take(Action::BackUp)?;
    world.take(Action::Append(ONE))?;
    world.settle(&[ONE, TWO], |_| true)?;
    world.take(Action::PutBack)?;
    world.settle(&[ONE], |_| true)?;
    world.take(Action::PowerCut(ONE, 1))?;
    world.settle(&[ONE, TWO], |action| action != Action::TellLog(ONE))?;
    world.heal()
}

/// The second broker leads without the last records that the first one has archived, and has others there.
fn goes_on_beyond_the_archive(broken: Option<Break>) -> Result<(), Violation> {
    let budget = Budget { appends: 6, lags: 1, crashes: 1, ..Budget::NONE };
    let mut world = World::new(2, 1, budget, broken).archived().unclean();
    world.take(Action::Append(ONE))?;
    world.settle(&[ONE, TWO], |_| true)?;
    world.take(Action::Append(ONE))?;
    world.take(Action::Append(ONE))?;
    world.take(Action::Lag)?;
    world.settle(&[ONE], |_| true)?;
    world.take(Action::Crash(ONE))?;
    world.take(Action::Fence(ONE))?;
    world.settle(&[TWO], |action| !matches!(action, Action::Archive(_)))?;
    for _ in 0..3 {
        world.take(Action::Append(TWO))?;
    }
    world.settle(&[TWO], |_| true)?;
    world.heal()
}

/// The second broker leads without what the first one has archived and dropped; before the archive goes on with its log, the first one
/// leads again.
fn leads_again_before_the_decision(broken: Option<Break>) -> Result<(), Violation> {
    let budget = Budget { appends: 4, drops: 3, lags: 1, crashes: 2, partings: 1, ..Budget::NONE };
    let mut world = World::new(2, 1, budget, broken).archived().unclean();
    world.take(Action::Append(ONE))?;
    world.settle(&[ONE, TWO], |_| true)?;
    world.take(Action::Append(ONE))?;
    world.take(Action::Append(ONE))?;
    world.take(Action::Lag)?;
    world.settle(&[ONE], |_| true)?;
    for _ in 0..3 {
        world.take(Action::DropLocal(ONE))?;
    }
    world.take(Action::Crash(ONE))?;
    world.take(Action::Fence(ONE))?;
    world.settle(&[TWO], |_| true)?;
    world.take(Action::Part)?;
    world.take(Action::Crash(TWO))?;
    world.take(Action::Fence(TWO))?;
    world.settle(&[ONE], |_| true)?;
    world.take(Action::ConfirmPart)?;
    world.take(Action::Append(ONE))?;
    world.settle(&[ONE], |_| true)?;
    world.heal()
}

/// The first compactor has made an object of a value of which it is said meanwhile that it is gone.
fn publishes_late(broken: Option<Break>) -> Result<(), Violation> {
    let budget = Budget { appends: 3, compactions: 2, ..Budget::NONE };
    let world = World::new(2, 1, budget, broken).held_by_first(1);
    let mut world = world.archived().compacted().with_compactors(2);
    world.take(Action::Append(ONE))?;
    world.settle(&[ONE], |_| true)?;
    world.take(Action::Compact(0))?;
    world.take(Action::Append(ONE))?;
    world.take(Action::Append(ONE))?;
    world.settle(&[ONE], |_| true)?;
    // It plans, replaces three objects and notes that.
    for _ in 0..5 {
        world.take(Action::Compact(1))?;
        world.settle(&[ONE], |_| true)?;
    }
    world.take(Action::Compact(0))?;
    world.settle(&[ONE], |_| true)?;
    world.take(Action::Compact(0))?;
    world.heal()
}

impl World {
    fn take(&mut self, action: Action) -> Result<(), Violation> {
        assert!(self.actions().contains(&action), "{action:?} cannot be: {:?}", self.partition);
        self.act(action);
        self.check()
    }

    /// On these brokers everything comes to its end that happens, without a fault; the others hear nothing of it.
    fn settle(&mut self, ids: &[BrokerId], happens: impl Fn(Action) -> bool) -> Result<(), Violation> {
        let budget = std::mem::replace(&mut self.budget, Budget::NONE);
        for _ in 0..30 {
            self.round(|id| ids.contains(&id), &happens)?;
        }
        self.budget = budget;
        Ok(())
    }
}
