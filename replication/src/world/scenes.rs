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
    pub(crate) const ALL: [Scene; 3] = [
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
