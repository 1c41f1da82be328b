//! Free space of the log directories, and when it will be used up.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::GaugeVec;

use super::{Registry, by_directory};

/// Estimates when a disk is full, from its free space over time. Pure: the clock is the caller's.
///
/// The rate is averaged exponentially over [`TimeToFull::MEMORY`], so that the deletion of one segment does not turn a disk
/// that fills into one that does not.
#[derive(Clone, Debug, Default)]
pub struct TimeToFull {
    last: Option<(Duration, u64)>,
    /// Bytes per second that free space shrinks by; negative while it grows.
    rate: Option<f64>,
}

impl TimeToFull {
    /// Samples older than this count for about a third.
    pub const MEMORY: Duration = Duration::from_secs(600);

    /// Takes in the free bytes at `now` (monotonic); returns the time that is left, `None` while the disk does not fill.
    pub fn observe(&mut self, now: Duration, free: u64) -> Option<Duration> {
        if let Some((then, before)) = self.last
            && let elapsed = now.saturating_sub(then).as_secs_f64()
            && elapsed > 0.0
        {
            let seen = (before as f64 - free as f64) / elapsed;
            let keep = (-elapsed / Self::MEMORY.as_secs_f64()).exp();
            self.rate = Some(self.rate.map_or(seen, |rate| rate * keep + seen * (1.0 - keep)));
        }
        self.last = Some((now, free));
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(free as f64 / rate).ok()
    }
}

/// Size, free bytes and time to full of some directories, as gauges.
#[derive(Debug)]
pub struct DiskGauges {
    size: GaugeVec,
    free: GaugeVec,
    time_to_full: GaugeVec,
    started: Instant,
    dirs: Mutex<Vec<(PathBuf, TimeToFull)>>,
}

impl DiskGauges {
    /// Gauges for these directories, in `registry`. Call [`DiskGauges::refresh`] before each scrape.
    pub fn new(registry: &Registry, dirs: impl IntoIterator<Item = PathBuf>) -> DiskGauges {
        DiskGauges {
            size: by_directory(registry, "varve_disk_bytes", "Size of the file system of a log directory"),
            free: by_directory(
                registry,
                "varve_disk_free_bytes",
                "Bytes that the node may still write to a log directory",
            ),
            time_to_full: by_directory(
                registry,
                "varve_disk_time_to_full_seconds",
                "Time until a log directory is full if it goes on filling as lately; +Inf while it does not fill",
            ),
            started: Instant::now(),
            dirs: Mutex::new(dirs.into_iter().map(|dir| (dir, TimeToFull::default())).collect()),
        }
    }

    /// Asks the file systems and sets the gauges. A directory that cannot be asked has no values until it can.
    pub fn refresh(&self) {
        let now = self.started.elapsed();
        for (dir, estimate) in self.dirs.lock().iter_mut() {
            let label = dir.to_string_lossy();
            match rustix::fs::statvfs(&*dir) {
                Ok(space) => {
                    let free = space.f_bavail.saturating_mul(space.f_frsize);
                    let left = estimate.observe(now, free).map_or(f64::INFINITY, |left| left.as_secs_f64());
                    let size = space.f_blocks.saturating_mul(space.f_frsize);
                    self.size.with_label_values(&[label.as_ref()]).set(size as f64);
                    self.free.with_label_values(&[label.as_ref()]).set(free as f64);
                    self.time_to_full.with_label_values(&[label.as_ref()]).set(left);
                }
                Err(error) => {
                    tracing::warn!(dir = %label, %error, "cannot ask for free space");
                    let _ = self.size.remove_label_values(&[label.as_ref()]);
                    let _ = self.free.remove_label_values(&[label.as_ref()]);
                    let _ = self.time_to_full.remove_label_values(&[label.as_ref()]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_disk_that_fills_steadily_is_full_when_its_free_space_is_used_up() {
        let mut estimate = TimeToFull::default();
        assert_eq!(estimate.observe(seconds(0), 1000), None, "one sample says nothing");
        let left = estimate.observe(seconds(10), 900).unwrap();
        assert_eq!(left.as_secs(), 90);
    }

    #[test]
    fn a_disk_that_empties_is_never_full() {
        let mut estimate = TimeToFull::default();
        estimate.observe(seconds(0), 1000);
        assert_eq!(estimate.observe(seconds(10), 2000), None);
    }

    #[test]
    fn one_deleted_segment_does_not_hide_that_the_disk_fills() {
        let mut estimate = TimeToFull::default();
        let mut free = 1_000_000;
        for minute in 0..60 {
            free -= 6000;
            estimate.observe(seconds(minute * 60), free);
        }
        let left = estimate.observe(seconds(60 * 60), free + 3000);
        assert!(left.is_some(), "ten minutes of filling outweigh one deletion");
    }

    #[test]
    fn two_samples_at_one_time_change_nothing() {
        let mut estimate = TimeToFull::default();
        estimate.observe(seconds(0), 1000);
        estimate.observe(seconds(10), 900);
        assert_eq!(estimate.observe(seconds(10), 900).map(|left| left.as_secs()), Some(90));
    }

    #[test]
    fn gauges_show_the_file_system_of_each_directory() {
        let registry = Registry::new();
        let gauges = DiskGauges::new(&registry, ["/".into(), "/does/not/exist".into()]);
        gauges.refresh();
        let families = registry.gather();
        let free = families.iter().find(|family| family.name() == "varve_disk_free_bytes").unwrap();
        assert_eq!(free.get_metric().len(), 1);
    }
}
