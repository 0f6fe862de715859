//! How a run goes on: from "3 at a time, 10 % of errors" to the gate that is signed.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::{Batch, Gate, HostId, HostSet, Share};

use crate::fault::Failure;
use crate::tables::HostRow;
use crate::types::{Amount, Pace};

/// How many run at once if only a budget is given: without a limit all would have begun before the
/// first has failed.
const WINDOW: u64 = 64;
/// How long after its release a host may begin, if not longer to be reached.
const BEGIN: Duration = Duration::from_secs(30);
/// The same, if it needs content first.
const BEGIN_WITH_CONTENT: Duration = Duration::from_secs(600);
/// What ending a command that has run too long may take.
const GRACE: Duration = Duration::from_secs(10);
/// For how long hosts are let begin, unless a deadline says otherwise: every node remembers the
/// order for as long.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a pace comes to for some targets.
pub(crate) struct Paced {
    pub(crate) gate: Gate,
    /// How long hosts are let begin.
    pub(crate) lasts: Duration,
}

/// The gate of a run. `None`: everybody at once.
pub(crate) fn paced(
    pace: &Pace,
    targets: &HostSet,
    hosts: &BTreeMap<HostId, HostRow>,
    (reach, timeout): (Duration, Duration),
    has_content: bool,
) -> Result<Option<Paced>, Failure> {
    if *pace == Pace::default() {
        return Ok(None);
    }
    let count = targets.len();
    let some = |what: &str, number: Option<u64>| match number {
        Some(0) => Err(Failure::bad(format!("{what} is 0: nobody could begin"), "at least 1")),
        number => Ok(number),
    };
    let batch = pace.batch.as_deref().map(|text| amount("the batch", text, count)).transpose()?;
    let batch = some("the batch", batch.map(|(number, part)| number + u64::from(part)))?;
    let limit = |what, text: &Option<String>| -> Result<Option<u64>, Failure> {
        Ok(text.as_deref().map(|text| amount(what, text, count)).transpose()?.map(|(n, _)| n))
    };
    let max_errors = limit("the number of errors", &pace.max_errors)?;
    let max_missed = limit("the number of missed hosts", &pace.max_missed)?;
    let budget = max_errors.is_some() || max_missed.is_some();
    let window = match &pace.window {
        Some(Amount::Number(number)) => Some((*number, false)),
        Some(Amount::Text(text)) => Some(amount("the window", text, count)?),
        None => None,
    };
    let window = window.map(|(number, part)| number + u64::from(part));
    let window = some("the window", window)?.or(batch);
    let window = window.unwrap_or(if budget { WINDOW } else { count.max(1) });
    let per_site = share("the number for each site", &pace.per_site)?;
    let begin = if has_content { BEGIN_WITH_CONTENT } else { BEGIN };
    let gate = Gate {
        window,
        per_child: share("the number for each relay", &pace.per_relay)?,
        lots: if per_site.is_some() { sites(targets, hosts) } else { Vec::new() },
        per_lot: per_site.unwrap_or(Share::Hosts(1)),
        batch: batch.map(|size| Batch { size, wait: Duration::from_millis(pace.batch_wait_ms) }),
        max_errors,
        max_missed,
        begin: begin.max(reach),
        longest: timeout + GRACE,
    };
    let lasts = match pace.deadline_ms {
        Some(ms) => Duration::from_millis(ms),
        None => worst(&gate, count).min(LONGEST),
    };
    Ok(Some(Paced { gate, lasts }))
}

/// How long a run takes if everything takes as long as it may.
fn worst(gate: &Gate, count: u64) -> Duration {
    let times = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    // At any moment before the last host begins either the whole window is taken, or all that its
    // group may have.
    let in_group = |hosts: u64, share: Share| hosts.div_ceil(share.of(hosts).max(1));
    let by_lot = gate.lots.iter().map(|lot| in_group(lot.len(), gate.per_lot)).max();
    let by_child = gate.per_child.map(|share| match share {
        Share::Hosts(number) => count.div_ceil(number.max(1)),
        Share::Percent(percent) => 100_u32.div_ceil(percent.max(1)).into(),
    });
    let rounds = count.div_ceil(gate.window.max(1));
    let rounds = rounds + by_lot.unwrap_or_default() + by_child.unwrap_or_default();
    let waits = gate.batch.map_or(Duration::ZERO, |batch| {
        batch.wait.saturating_mul(times(count.div_ceil(batch.size)))
    });
    (gate.begin + gate.longest).saturating_mul(times(rounds)).saturating_add(waits)
}

/// The targets of each site that has a name.
fn sites(targets: &HostSet, hosts: &BTreeMap<HostId, HostRow>) -> Vec<HostSet> {
    let mut sites = BTreeMap::<&str, Vec<HostId>>::new();
    for id in targets.iter() {
        if let Some(row) = hosts.get(&id).filter(|row| !row.site.is_empty()) {
            sites.entry(&row.site).or_default().push(id);
        }
    }
    sites.into_values().map(|ids| ids.into_iter().collect()).collect()
}

/// A number of hosts of each group, or a part of it.
fn share(what: &str, given: &Option<Amount>) -> Result<Option<Share>, Failure> {
    let share = match given {
        None => return Ok(None),
        Some(Amount::Number(number)) => Share::Hosts(*number),
        Some(Amount::Text(text)) => match text.strip_suffix('%') {
            // A hundred of a hundred: what is checked is the text.
            Some(_) => {
                let (percent, _) = amount(what, text, 100)?;
                Share::Percent(u32::try_from(percent).unwrap_or(u32::MAX))
            }
            None => Share::Hosts(amount(what, text, 0)?.0),
        },
    };
    match share {
        Share::Hosts(0) | Share::Percent(0) => {
            Err(Failure::bad(format!("{what} is 0: nobody could begin"), "at least 1"))
        }
        share => Ok(Some(share)),
    }
}

/// A number, or a part of `count` in percent, rounded down; and whether something was cut off.
fn amount(what: &str, text: &str, count: u64) -> Result<(u64, bool), Failure> {
    let wrong = || {
        let message = format!("{what} is {text:?}, which is neither a number nor a percentage");
        Failure::bad(message, "for example 3 or 10%")
    };
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent: u64 = percent.trim().parse().map_err(|_| wrong())?;
            if percent > 100 {
                return Err(wrong());
            }
            let parts = count * percent;
            Ok((parts / 100, !parts.is_multiple_of(100)))
        }
        None => Ok((text.trim().parse().map_err(|_| wrong())?, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(site: &str) -> HostRow {
        let (name, role) = (String::new(), "host".into());
        HostRow { name, site: site.into(), role, key: [0; 32], enrolled_ms: 0 }
    }

    #[track_caller]
    fn gate(pace: &Pace) -> Gate {
        let targets = HostSet::from_ranges([(1, 250)]);
        let hosts = (1..=250).map(|n| (HostId(n), row(["lyon", "paris", ""][n as usize % 3])));
        let times = (Duration::from_secs(15), Duration::from_secs(60));
        let paced = paced(pace, &targets, &hosts.collect(), times, false);
        paced.expect("it is valid").expect("it has a gate").gate
    }

    #[test]
    fn numbers_and_percentages() {
        let text = |text: &str| Some(text.to_owned());
        let window = |amount| gate(&Pace { window: Some(amount), ..Pace::default() }).window;
        assert_eq!(window(Amount::Number(3)), 3);
        // Of 250: rounded up, so that there is always somebody.
        assert_eq!(
            (window(Amount::Text("10%".into())), window(Amount::Text("1%".into()))),
            (25, 3)
        );
        let batch = gate(&Pace { batch: text("1%"), batch_wait_ms: 5, ..Pace::default() });
        let wait = Duration::from_millis(5);
        assert_eq!((batch.window, batch.batch), (3, Some(Batch { size: 3, wait })));
        let budget = gate(&Pace { max_errors: text("1%"), ..Pace::default() });
        assert_eq!((budget.window, budget.max_errors, budget.max_missed), (64, Some(2), None));
        assert_eq!(gate(&Pace { max_missed: text("0"), ..Pace::default() }).max_missed, Some(0));
        assert_eq!(gate(&Pace { deadline_ms: Some(9), ..Pace::default() }).window, 250);
        for wrong in ["x", "-1", "101%", "%", ""] {
            assert!(amount("it", wrong, 10).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sites_are_groups_and_who_has_none_is_free() {
        let sites = gate(&Pace { per_site: Some(Amount::Number(2)), ..Pace::default() });
        assert_eq!((sites.lots.len(), sites.per_lot), (2, Share::Hosts(2)));
        assert!(sites.lots.iter().all(|lot| !lot.contains(HostId(2))));
        let tenth = || Some(Amount::Text("10%".into()));
        let parts = gate(&Pace { per_site: tenth(), per_relay: tenth(), ..Pace::default() });
        let tenth = Share::Percent(10);
        assert_eq!((parts.per_lot, parts.per_child, parts.window), (tenth, Some(tenth), 250));
        for wrong in ["0%", "0", "101%", "x"] {
            let wrong = Some(Amount::Text(wrong.into()));
            assert!(share("it", &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn how_long_it_may_take() {
        let rounds = |pace: &Pace| {
            let gate = gate(pace);
            worst(&gate, 250).as_secs() / (gate.begin + gate.longest).as_secs()
        };
        assert_eq!(rounds(&Pace { window: Some(Amount::Number(100)), ..Pace::default() }), 3);
        // All at once but for the sites of 84 and 83 hosts, 9 of each at a time.
        let tenth = Some(Amount::Text("10%".into()));
        assert_eq!(rounds(&Pace { per_site: tenth.clone(), ..Pace::default() }), 1 + 10);
        assert_eq!(rounds(&Pace { per_relay: tenth, ..Pace::default() }), 1 + 10);
    }

    #[test]
    fn nothing_said_is_everybody_at_once_and_nobody_at_once_is_an_error() {
        let (targets, hosts) = (HostSet::from_ranges([(1, 3)]), BTreeMap::new());
        let times = (Duration::ZERO, Duration::from_secs(1));
        let none = paced(&Pace::default(), &targets, &hosts, times, false);
        assert!(none.expect("it is valid").is_none());
        for zero in [Amount::Number(0), Amount::Text("0%".into()), Amount::Text("x".into())] {
            let zero = Pace { window: Some(zero), ..Pace::default() };
            assert!(paced(&zero, &targets, &hosts, times, false).is_err());
        }
    }
}
