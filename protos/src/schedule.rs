//! What is due when, for sites that do not hear the controller: it travels, and is kept, with the
//! list of removed keys.
//!
//! Texts are what the controller has checked; whether they make sense here is for whoever reads
//! them to see, who may know other places and zones. What does not fit is left out by the
//! controller ([`Schedule::fit`]), which says so.

use std::collections::BTreeMap;

use timing::Times;

use crate::field::{at_most, at_most_bytes, ensure, not_empty, plain};
use crate::{FieldError, pb};

/// The most frequencies, and the most sites with clocks of their own.
const FREQUENCIES: usize = 256;
const SITES: usize = 4_096;
/// The longest name, cron line or zone, other text; and the most windows of a frequency.
const NAME: usize = 64;
const LINE: usize = 256;
const TEXT: usize = 128;
const WINDOWS: usize = 32;
/// All texts together.
const ALL: usize = 64 << 10;

/// What is due when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// What each frequency says of its times.
    pub frequencies: BTreeMap<String, Times>,
    /// The clocks of sites that have their own.
    pub zones: BTreeMap<String, String>,
}

impl Schedule {
    /// Leaves out what does not fit. Returns how much that is.
    pub fn fit(&mut self) -> usize {
        let mut room = ALL;
        let mut fits = |bytes: usize, good: bool| {
            let fits = good && bytes <= room;
            room -= if fits { bytes } else { 0 };
            fits
        };
        let before = self.frequencies.len() + self.zones.len();
        let mut count = 0;
        self.frequencies.retain(|name, times| {
            let good = count < FREQUENCIES && check(name, times).is_ok();
            let fits = fits(length(name, times), good);
            count += usize::from(fits);
            fits
        });
        let mut count = 0;
        self.zones.retain(|site, zone| {
            let good = count < SITES && check_zone(site, zone).is_ok();
            let fits = fits(site.len() + zone.len(), good);
            count += usize::from(fits);
            fits
        });
        before - self.frequencies.len() - self.zones.len()
    }

    pub(crate) fn to_pb(&self) -> (Vec<pb::Frequency>, Vec<pb::SiteZone>) {
        let frequency = |(name, times): (&String, &Times)| {
            let Times { cron, zone, splay, windows, expires } = times.clone();
            pb::Frequency { name: name.clone(), cron, zone, splay, windows, expires }
        };
        let zone = |(site, zone): (&String, &String)| {
            let (site, zone) = (site.clone(), zone.clone());
            pb::SiteZone { site, zone }
        };
        let frequencies = self.frequencies.iter().map(frequency).collect();
        (frequencies, self.zones.iter().map(zone).collect())
    }

    pub(crate) fn from_pb(
        frequencies: Vec<pb::Frequency>,
        sites: Vec<pb::SiteZone>,
    ) -> Result<Schedule, FieldError> {
        at_most("removals.frequencies", frequencies.len(), FREQUENCIES)?;
        at_most("removals.zones", sites.len(), SITES)?;
        let (mut schedule, mut all) = (Schedule::default(), 0);
        for pb::Frequency { name, cron, zone, splay, windows, expires } in frequencies {
            let times = Times { cron, zone, splay, windows, expires };
            check(&name, &times)?;
            all += length(&name, &times);
            let last = schedule.frequencies.last_key_value();
            let rising = last.is_none_or(|(last, _)| *last < name);
            ensure(rising, "removals.frequencies", "is not in ascending order")?;
            schedule.frequencies.insert(name, times);
        }
        for pb::SiteZone { site, zone } in sites {
            check_zone(&site, &zone)?;
            all += site.len() + zone.len();
            let rising = schedule.zones.last_key_value().is_none_or(|(last, _)| *last < site);
            ensure(rising, "removals.zones", "is not in ascending order")?;
            schedule.zones.insert(site, zone);
        }
        at_most_bytes("removals.frequencies and removals.zones", all, ALL)?;
        Ok(schedule)
    }
}

fn length(name: &str, times: &Times) -> usize {
    let Times { cron, zone, splay, windows, expires } = times;
    let texts = [name, cron, zone, splay, expires].map(str::len).iter().sum::<usize>();
    texts + windows.iter().map(String::len).sum::<usize>()
}

fn check(name: &str, times: &Times) -> Result<(), FieldError> {
    not_empty("frequency.name", name.len())?;
    plain("frequency.name", name, NAME)?;
    plain("frequency.cron", &times.cron, LINE)?;
    plain("frequency.zone", &times.zone, LINE)?;
    plain("frequency.splay", &times.splay, TEXT)?;
    plain("frequency.expires", &times.expires, TEXT)?;
    at_most("frequency.windows", times.windows.len(), WINDOWS)?;
    times.windows.iter().try_for_each(|window| plain("frequency.windows", window, TEXT))
}

fn check_zone(site: &str, zone: &str) -> Result<(), FieldError> {
    not_empty("site_zone.site", site.len())?;
    plain("site_zone.site", site, NAME)?;
    plain("site_zone.zone", zone, LINE)
}

#[cfg(test)]
pub(crate) mod testing {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any() -> impl Strategy<Value = Schedule> {
        let text = || "[a-z0-9 */-]{0,12}";
        let times = (text(), text(), text(), vec(text(), 0..3), text()).prop_map(
            |(cron, zone, splay, windows, expires)| Times { cron, zone, splay, windows, expires },
        );
        let frequencies = btree_map("[a-z]{1,6}", times, 0..4);
        let zones = btree_map("[a-z]{1,6}", text(), 0..4);
        (frequencies, zones).prop_map(|(frequencies, zones)| Schedule { frequencies, zones })
    }

    pub(crate) fn plain() -> Schedule {
        let times = Times {
            splay: "10m".into(),
            windows: vec!["22-06".into()],
            ..Times::new("0 * * * *", "UTC")
        };
        Schedule {
            frequencies: [("day".into(), times.clone()), ("hour".into(), times)].into(),
            zones: [("lyon".into(), "Europe/Paris".into())].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_the_rest_is_read() {
        let mut schedule = testing::plain();
        assert_eq!(schedule.fit(), 0);
        let long = Times::new(&"0,".repeat(LINE), "UTC");
        schedule.frequencies.insert("long".into(), long);
        for n in 0..SITES {
            schedule.zones.insert(format!("site-{n:04}"), "Europe/Paris".into());
        }
        let all = schedule.zones.len();
        let left_out = schedule.fit();
        assert!(!schedule.frequencies.contains_key("long"));
        assert_eq!(left_out, 1 + all - schedule.zones.len());
        let (frequencies, zones) = schedule.to_pb();
        assert_eq!(Schedule::from_pb(frequencies, zones), Ok(schedule));
    }

    #[test]
    fn names_come_in_one_order() {
        let (frequencies, mut zones) = testing::plain().to_pb();
        zones.push(zones[0].clone());
        let twice = Schedule::from_pb(frequencies.clone(), zones).expect_err("it is refused");
        assert_eq!(twice.to_string(), "removals.zones is not in ascending order");
        let backwards = frequencies.into_iter().rev().collect();
        let backwards = Schedule::from_pb(backwards, Vec::new()).expect_err("it is refused");
        assert_eq!(backwards.to_string(), "removals.frequencies is not in ascending order");
    }
}
