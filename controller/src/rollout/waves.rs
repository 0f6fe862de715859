//! Waves: "1,5%,25%,100%", and which hosts that comes to.
//!
//! Each item says how far a rollout has come when its wave is over: a number of hosts, a percentage
//! of all, or a set whose hosts go with that wave. Hosts are taken in a fixed order in which each
//! site is spread evenly, so that a small wave is a sample of the fleet and never one whole site;
//! those that are up go first. Nobody is left over, and nobody is in two waves.

use std::collections::BTreeMap;

use mesh::{HostId, HostSet};
use thiserror::Error;

use super::gate::Share;

/// How a push to many goes if nothing else is said.
pub const USUAL: &str = "1,5%,25%,100%";
/// How many waves there may be.
const MOST: usize = 64;

/// One item of a list of waves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// So many of all are done then.
    UpTo(Share),
    /// These go.
    Set(String),
}

/// A list that does not say waves.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum WavesError {
    #[error("waves {text:?}: {item:?} is neither a number, a percentage up to 100% nor a set")]
    Item { text: String, item: String },
    #[error("waves {text:?}: {later} does not go beyond {earlier}")]
    Shrinks { text: String, earlier: String, later: String },
    #[error("waves {text:?}: a wave of nobody")]
    Zero { text: String },
    #[error("waves {text:?}: more than {MOST} waves")]
    Many { text: String },
    #[error("waves {text:?}: {left} of {all} hosts are in none of them")]
    Left { text: String, left: u64, all: u64 },
    #[error("waves {text:?}: {set} holds none of the targets")]
    Nobody { text: String, set: String },
}

/// Reads a list of waves.
pub(crate) fn tiers(text: &str) -> Result<Vec<Tier>, WavesError> {
    let whole = || text.to_owned();
    let mut tiers = Vec::new();
    let mut last: BTreeMap<bool, (u64, &str)> = BTreeMap::new();
    for item in items(text) {
        let wrong = || WavesError::Item { text: whole(), item: item.into() };
        if !item.starts_with(|c: char| c.is_ascii_digit()) {
            match item.is_empty() || item.starts_with(['-', '+', '%']) {
                true => return Err(wrong()),
                false => tiers.push(Tier::Set(item.into())),
            }
            continue;
        }
        // A set may begin with a digit, too: then it has a letter.
        let Some(share) = Share::parse(item) else {
            match item.contains(|c: char| c.is_alphabetic()) {
                true => tiers.push(Tier::Set(item.into())),
                false => return Err(wrong()),
            }
            continue;
        };
        let (is_part, size) = match share {
            Share::Count(count) => (false, count),
            Share::Part(part) => (true, part.into()),
        };
        if size == 0 {
            return Err(WavesError::Zero { text: whole() });
        }
        if let Some((_, earlier)) = last.get(&is_part).filter(|(before, _)| *before >= size) {
            let (earlier, later) = ((*earlier).into(), item.into());
            return Err(WavesError::Shrinks { text: whole(), earlier, later });
        }
        last.insert(is_part, (size, item));
        tiers.push(Tier::UpTo(share));
    }
    match tiers.len() {
        0 => Err(WavesError::Item { text: whole(), item: String::new() }),
        1..=MOST => Ok(tiers),
        _ => Err(WavesError::Many { text: whole() }),
    }
}

/// Whether a list says waves of whatever hosts, without naming any, and leaves nobody out.
pub(crate) fn check_plain(text: &str) -> Result<(), String> {
    let list = tiers(text).map_err(|error| error.to_string())?;
    if let Some(set) = list.iter().find_map(|tier| match tier {
        Tier::Set(set) => Some(set),
        Tier::UpTo(_) => None,
    }) {
        return Err(format!("waves {text:?}: {set} is a set; here are numbers and percentages"));
    }
    match list.last() {
        Some(Tier::UpTo(Share::Part(10_000))) => Ok(()),
        _ => Err(format!("waves {text:?}: the last one is 100%, or somebody never gets it")),
    }
}

/// How many hosts each wave has at most, as far as its list says a number.
pub(crate) fn most(text: &str) -> Vec<(usize, u64)> {
    let (mut before, mut most) = (0, Vec::new());
    for (at, tier) in tiers(text).unwrap_or_default().into_iter().enumerate() {
        let Tier::UpTo(Share::Count(number)) = tier else { break };
        most.push((at, number.saturating_sub(before)));
        before = number;
    }
    most
}

/// The items of a list: between commas that are not within brackets.
fn items(text: &str) -> Vec<&str> {
    let (mut items, mut begin, mut depth) = (Vec::new(), 0, 0u32);
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                items.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    items.push(text[begin..].trim());
    items
}

/// The waves of a list over these targets, which stand in the order in which they go. `sets`: who
/// is meant by each of the list's sets, in its order.
pub(crate) fn cut(
    text: &str,
    tiers: &[Tier],
    targets: &[HostId],
    sets: &[HostSet],
) -> Result<Vec<HostSet>, WavesError> {
    let all = targets.len() as u64;
    let (mut done, mut waves, mut sets) = (HostSet::new(), Vec::new(), sets.iter());
    let everybody: HostSet = targets.iter().copied().collect();
    for tier in tiers {
        let wave = match tier {
            Tier::UpTo(share) => {
                let upto = match share {
                    Share::Count(count) => *count,
                    Share::Part(part) => (all * u64::from(*part)).div_ceil(10_000),
                };
                let more = usize::try_from(upto.saturating_sub(done.len())).unwrap_or(usize::MAX);
                let rest = targets.iter().filter(|host| !done.contains(**host));
                rest.take(more).copied().collect()
            }
            Tier::Set(set) => {
                let meant = sets.next().cloned().unwrap_or_default().intersection(&everybody);
                if meant.is_empty() {
                    return Err(WavesError::Nobody { text: text.into(), set: set.clone() });
                }
                meant.difference(&done)
            }
        };
        if !wave.is_empty() {
            done = done.union(&wave);
            waves.push(wave);
        }
    }
    match all - done.len() {
        0 => Ok(waves),
        left => Err(WavesError::Left { text: text.into(), left, all }),
    }
}

/// The order in which hosts go: those that are up first, and each site spread evenly.
pub(crate) fn spread(
    targets: &HostSet,
    up: &HostSet,
    site: impl Fn(HostId) -> String,
) -> Vec<HostId> {
    let mut sites: BTreeMap<(bool, String), Vec<HostId>> = BTreeMap::new();
    for host in targets.iter() {
        sites.entry((!up.contains(host), site(host))).or_default().push(host);
    }
    let mut order = Vec::new();
    for ((is_away, _), hosts) in sites {
        let size = hosts.len() as u128;
        let place = |rank: usize| ((2 * rank as u128 + 1) << 32) / (2 * size);
        let placed = hosts.into_iter().enumerate().map(|(rank, h)| (is_away, place(rank), h));
        order.extend(placed);
    }
    order.sort_unstable();
    order.into_iter().map(|(.., host)| host).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(first: u32, last: u32) -> HostSet {
        HostSet::from_ranges([(first, last)])
    }

    fn sizes(text: &str, count: u32) -> Result<Vec<u64>, WavesError> {
        let targets: Vec<HostId> = (1..=count).map(HostId).collect();
        let waves = cut(text, &tiers(text)?, &targets, &[])?;
        Ok(waves.iter().map(HostSet::len).collect())
    }

    #[test]
    fn waves_are_cumulative_and_empty_ones_fall_away() {
        assert_eq!(sizes(USUAL, 1_000), Ok(vec![1, 49, 200, 750]));
        assert_eq!(sizes(USUAL, 10), Ok(vec![1, 2, 7]));
        assert_eq!(sizes(USUAL, 1), Ok(vec![1]));
        assert_eq!(sizes("3, 1000", 10), Ok(vec![3, 7]));
        assert_eq!(sizes("0.5%,100%", 1_000), Ok(vec![5, 995]));
    }

    #[test]
    fn named_tiers_go_first_and_only_targets() {
        let text = "@canary,web[1-2,7],50%,100%";
        let parsed = tiers(text).expect("it is a list");
        assert_eq!(parsed[1], Tier::Set("web[1-2,7]".into()));
        let targets: Vec<HostId> = (1..=10).map(HostId).collect();
        let waves = cut(text, &parsed, &targets, &[hosts(9, 30), hosts(10, 10)]);
        assert_eq!(waves, Ok(vec![hosts(9, 10), hosts(1, 3), hosts(4, 8)]));
        let nobody = cut(text, &parsed, &targets, &[hosts(20, 30), hosts(1, 1)]);
        assert_eq!(
            nobody.expect_err("none").to_string().split(": ").nth(1),
            Some("@canary holds none of the targets")
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (text, says) in [
            ("", "\"\" is neither"),
            ("1,,100%", "\"\" is neither"),
            ("5%,1%,100%", "1% does not go beyond 5%"),
            ("10,10", "10 does not go beyond 10"),
            ("0,100%", "a wave of nobody"),
            ("110%", "\"110%\" is neither"),
            ("-1", "neither"),
            ("1;2", "neither"),
            ("1,5%", "9 of 10 hosts are in none of them"),
        ] {
            let error = sizes(text, 10).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_frequency_has_plain_waves() {
        assert_eq!(check_plain("1,5%,100%"), Ok(()));
        for (text, says) in [("1,50%", "100%"), ("@a,100%", "is a set"), ("5%,1%", "beyond")] {
            let error = check_plain(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_small_wave_is_a_sample() {
        let site = |host: HostId| if host.0 <= 90 { "big".into() } else { "small".to_owned() };
        let up = hosts(1, 99);
        let order = spread(&hosts(1, 100), &up, site);
        let first: HostSet = order[..20].iter().copied().collect();
        assert_eq!(first.intersection(&hosts(91, 100)).len(), 2);
        assert_eq!(order.last(), Some(&HostId(100)), "who is away goes last");
    }

    proptest! {
        #[test]
        fn everybody_is_in_one_wave(
            count in 1..300u32, parts in proptest::collection::btree_set(1..10_000u32, 0..6),
            up in proptest::collection::btree_set(1..300u32, 0..300),
        ) {
            let shares = parts.iter().map(|part| Share::Part(*part).to_string());
            let text: Vec<String> = shares.chain(["100%".into()]).collect();
            let text = text.join(",");
            let all = hosts(1, count);
            let up: HostSet = up.into_iter().map(HostId).collect();
            let order = spread(&all, &up, |host| (host.0 % 7).to_string());
            let waves = cut(&text, &tiers(&text).expect("a list"), &order, &[]).expect("waves");
            let mut seen = HostSet::new();
            for wave in &waves {
                prop_assert!(!wave.is_empty() && !wave.intersects(&seen));
                seen = seen.union(wave);
            }
            prop_assert_eq!(seen, all);
        }
    }
}
