//! The rules of a share group: its own where it has them, as far as the broker allows, else the broker's.

use std::time::Duration;

use varve_metadata::image::{ClusterImage, ConfigResource};

use crate::{
    config::{GroupLimit, GroupTime, ShareGroupConfig},
    partition::Isolation,
    share::ShareTerms,
};

/// The group's setting of where it begins to read.
pub(crate) const OFFSET_RESET: &str = "share.auto.offset.reset";

/// Where a group begins to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OffsetReset {
    /// With the first record that there is.
    Earliest,
    /// With the next record that is written.
    Latest,
    /// With the first record that is no older.
    Since(Duration),
}

impl OffsetReset {
    /// `earliest`, `latest`, or `by_duration:` and a time as ISO 8601 has it.
    pub(crate) fn parse(text: &str) -> Option<OffsetReset> {
        match text {
            "earliest" => Some(OffsetReset::Earliest),
            "latest" => Some(OffsetReset::Latest),
            text => parse_duration(text.strip_prefix("by_duration:")?).map(OffsetReset::Since),
        }
    }
}

/// `PnDTnHnMn.nS`, in any case, each part at most once; not less than nothing.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.to_ascii_uppercase();
    let (days, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (text.strip_prefix('P')?, None),
    };
    if days.is_empty() && time.is_none() || time.is_some_and(str::is_empty) {
        return None;
    }
    let mut seconds: f64 = 0.0;
    let mut rest = days;
    if let Some((number, behind)) = rest.split_once('D') {
        seconds += 86_400.0 * whole(number)?;
        rest = behind;
    }
    if !rest.is_empty() {
        return None;
    }
    let mut rest = time.unwrap_or_default();
    for (unit, length) in [('H', 3600.0), ('M', 60.0)] {
        if let Some((number, behind)) = rest.split_once(unit) {
            seconds += length * whole(number)?;
            rest = behind;
        }
    }
    if let Some((number, behind)) = rest.split_once('S') {
        let fits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
        seconds += number.parse::<f64>().ok().filter(|_| fits)?;
        rest = behind;
    }
    if !rest.is_empty() {
        return None;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

fn whole(number: &str) -> Option<f64> {
    number.parse::<i64>().ok().map(|number| number as f64)
}

/// What holds for a group at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareRules {
    pub(crate) terms: ShareTerms,
    pub(crate) isolation: Isolation,
    pub(crate) reset: OffsetReset,
}

impl ShareRules {
    /// The rules of `group`.
    pub(crate) fn of(image: &ClusterImage, settings: &ShareGroupConfig, group: &str) -> ShareRules {
        let own = image.configs().get(&ConfigResource::Group(group.to_owned()));
        let own = |name: &str| own.and_then(|own| own.get(name)).map(|value| value.trim());
        let time = |name: &str, time: GroupTime| {
            let given = own(name).and_then(|value| value.parse().ok()).map(Duration::from_millis);
            given.unwrap_or(time.usual).clamp(time.min, time.max)
        };
        let limit = |name: &str, limit: GroupLimit| {
            let given: Option<u32> = own(name).and_then(|value| value.parse().ok());
            given.unwrap_or(limit.usual).clamp(limit.min, limit.max)
        };
        let max_deliveries = limit("share.delivery.count.limit", settings.delivery_limit);
        let terms = ShareTerms {
            lock_duration: time("share.record.lock.duration.ms", settings.lock_duration),
            max_deliveries: u16::try_from(max_deliveries).unwrap_or(u16::MAX),
            max_in_flight: u64::from(limit("share.partition.max.record.locks", settings.max_locks)),
            allows_renewal: own("share.renew.acknowledge.enable") != Some("false"),
        };
        let isolation = match own("share.isolation.level") {
            Some("read_committed") => Isolation::Committed,
            _ => Isolation::Uncommitted,
        };
        let reset = own(OFFSET_RESET).and_then(OffsetReset::parse).unwrap_or(OffsetReset::Latest);
        ShareRules { terms, isolation, reset }
    }

    /// How long a record is one member's, in milliseconds.
    pub(crate) fn lock_duration_ms(&self) -> i32 {
        i32::try_from(self.terms.lock_duration.as_millis()).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_iso_8601() {
        let since = |text: &str| OffsetReset::parse(&format!("by_duration:{text}"));
        let seconds = |seconds| Some(OffsetReset::Since(Duration::from_secs_f64(seconds)));
        assert_eq!(since("PT1H"), seconds(3600.0));
        assert_eq!(since("P1DT2H3M4.5S"), seconds(86_400.0 + 7200.0 + 180.0 + 4.5));
        assert_eq!(since("p2d"), seconds(172_800.0));
        assert_eq!(since("PT0S"), seconds(0.0));
        for bad in ["", "P", "PT", "1H", "PT1", "PT1D", "P1H", "PT1M1H", "-PT1S", "PT-1S", "PTinfS", "PTS", "PT1e3S"] {
            assert_eq!(since(bad), None, "{bad}");
        }
        assert_eq!(OffsetReset::parse("earliest"), Some(OffsetReset::Earliest));
        assert_eq!(OffsetReset::parse("by_duration"), None);
        assert_eq!(OffsetReset::parse("none"), None);
    }
}
