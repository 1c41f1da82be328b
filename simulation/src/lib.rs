//! Which seeds a simulation runs: its own few in an ordinary test, or as many as fit into some time (`cargo xtask simulate`).
//!
//! | Variable | |
//! |---|---|
//! | `VARVE_SIM_FROM` | the first seed, in place of the simulation's own |
//! | `VARVE_SIM_SEEDS` | how many, in place of its own |
//! | `VARVE_SIM_SECONDS` | as many as begin within this time, in place of its own |
//! | `VARVE_SIM_REPORT` | a file that gets a line for each simulation: its name, first seed, how many, and whether the last one failed |

use std::{
    env, fs,
    io::Write as _,
    ops::Range,
    path::PathBuf,
    time::{Duration, Instant},
};

/// The seeds to run, in place of `own` if the environment says so. One that fails is named on standard error.
///
/// # Panics
/// A variable's value is no number.
pub fn seeds(own: Range<u64>) -> Seeds {
    let from = number("VARVE_SIM_FROM").unwrap_or(own.start);
    let end = match (number("VARVE_SIM_SECONDS"), number("VARVE_SIM_SEEDS")) {
        (Some(seconds), _) => End::After(Instant::now() + Duration::from_secs(seconds)),
        (None, Some(count)) => End::Seed(from.saturating_add(count)),
        (None, None) => End::Seed(from.saturating_add(own.end - own.start)),
    };
    Seeds { from, next: from, end, report: env::var_os("VARVE_SIM_REPORT").map(PathBuf::from) }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What [`seeds`] gives.
#[derive(Debug)]
pub struct Seeds {
    from: u64,
    next: u64,
    end: End,
    report: Option<PathBuf>,
}

#[derive(Debug)]
enum End {
    Seed(u64),
    After(Instant),
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let goes_on = match self.end {
            End::Seed(end) => self.next < end,
            End::After(end) => Instant::now() < end,
        };
        goes_on.then(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

impl Drop for Seeds {
    fn drop(&mut self) {
        let thread = std::thread::current();
        // The test harness names a test's thread after it.
        let name = thread.name().unwrap_or("a simulation");
        let has_failed = std::thread::panicking();
        if has_failed && self.next > self.from {
            eprintln!("{name} failed with seed {0}: VARVE_SIM_FROM={0} VARVE_SIM_SEEDS=1 runs it alone", self.next - 1);
        }
        let Some(report) = &self.report else { return };
        let outcome = if has_failed { ", the last one FAILED" } else { "" };
        let line = format!("{:>9} seeds from {:<9} {name}{outcome}\n", self.next - self.from, self.from);
        // A report that cannot be written fails no simulation; whoever asked for it finds none.
        let _ = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(report)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: u64, end: End) -> Seeds {
        Seeds { from, next: from, end, report: None }
    }

    #[test]
    fn so_many_or_as_long_as_there_is_time() {
        assert_eq!(of(7, End::Seed(10)).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(of(7, End::After(Instant::now())).next(), None);
        assert_eq!(of(7, End::After(Instant::now() + Duration::from_secs(3600))).nth(2), Some(9));
    }

    #[test]
    fn each_simulation_reports_what_it_ran_and_which_seed_failed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report");
        let run = |stop: u64| {
            let report = Some(file.clone());
            let seeds = Seeds { from: 3, next: 3, end: End::Seed(9), report };
            let ran = std::thread::Builder::new().name(format!("stops_at_{stop}"));
            let ran = ran.spawn(move || seeds.for_each(|seed| assert_ne!(seed, stop, "on purpose"))).unwrap();
            assert_eq!(ran.join().is_err(), stop < 9);
        };
        run(5);
        run(9);
        let lines = fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = lines.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["3 seeds from 3         stops_at_5, the last one FAILED", "6 seeds from 3         stops_at_9"]
        );
    }
}
