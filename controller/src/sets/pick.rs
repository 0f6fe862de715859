//! A few of many, chosen at random and yet again the same: `--pick 5`, `--pick 10%`, `1/site`.
//!
//! Each name gets a number from the seed and itself; the names with the smallest numbers are
//! chosen. So the choice depends on neither the order of the names nor on who else is there more
//! than it must: with the same seed a larger pick holds every smaller one, which is what a roll-out
//! in steps wants, and a host that has gone changes one place.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::str::FromStr;

use super::hash::Fnv;

/// How many to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    amount: Amount,
    /// So many of each site, not of all together.
    each_site: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    Hosts(u32),
    Percent(u32),
}

/// A text that does not say how many to choose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no choice: write 5, 10%, 1/site or 10%/site")]
pub struct PickError {
    /// What was given.
    pub text: String,
}

impl FromStr for Pick {
    type Err = PickError;

    fn from_str(text: &str) -> Result<Pick, PickError> {
        let wrong = || PickError { text: text.to_owned() };
        let (amount, each_site) = match text.strip_suffix("/site") {
            Some(amount) => (amount, true),
            None => (text, false),
        };
        let (digits, percent) = match amount.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (amount, false),
        };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        match (number, percent) {
            (1..=100, true) => Ok(Pick { amount: Amount::Percent(number), each_site }),
            (1.., false) => Ok(Pick { amount: Amount::Hosts(number), each_site }),
            _ => Err(wrong()),
        }
    }
}

impl Pick {
    /// The places of those who are chosen, in rising order. `hosts` are names with their sites. A
    /// part of a host counts as one, and of fewer than were asked for all are chosen.
    pub fn choose(self, seed: u64, hosts: &[(&str, &str)]) -> Vec<usize> {
        let mut pots: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
        for (place, (name, site)) in hosts.iter().enumerate() {
            let pot = if self.each_site { site } else { "" };
            pots.entry(pot).or_default().push((lot(seed, name), place));
        }
        let mut chosen = Vec::new();
        for (_, mut pot) in pots {
            let wanted = match self.amount {
                Amount::Hosts(hosts) => hosts as usize,
                Amount::Percent(percent) => (pot.len() * percent as usize).div_ceil(100),
            };
            pot.sort_unstable();
            chosen.extend(pot.into_iter().take(wanted).map(|(_, place)| place));
        }
        chosen.sort_unstable();
        chosen
    }
}

/// The number that a name draws. It must never change: old seeds would mean other hosts.
fn lot(seed: u64, name: &str) -> u64 {
    let mut hash = Fnv::new(seed);
    hash.write(name.as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<(String, String)> {
        (0..200).map(|i| (format!("n{i}"), format!("s{}", i % 4))).collect()
    }

    fn pick(text: &str, seed: u64) -> Vec<usize> {
        let hosts = hosts();
        let hosts: Vec<(&str, &str)> = hosts.iter().map(|(n, s)| (&**n, &**s)).collect();
        text.parse::<Pick>().expect("a choice").choose(seed, &hosts)
    }

    #[test]
    fn amounts() {
        assert_eq!(pick("5", 1).len(), 5);
        assert_eq!(pick("10%", 1).len(), 20);
        assert_eq!(pick("1000", 1).len(), 200);
        assert_eq!(pick("100%", 1), (0..200).collect::<Vec<_>>());
        let each = pick("3/site", 1);
        for site in 0..4 {
            assert_eq!(each.iter().filter(|at| **at % 4 == site).count(), 3);
        }
        assert_eq!(pick("1%/site", 1).len(), 4, "a part of a host is one");
        for wrong in ["", "0", "0%", "101%", "x", "-1", "+1", "5%%", "5/rack", "1.5", "99999999999"]
        {
            assert!(wrong.parse::<Pick>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_seed_always_chooses_the_same_and_more_holds_less() {
        assert_eq!(pick("5", 7), pick("5", 7));
        assert_ne!(pick("5", 7), pick("5", 8));
        let (few, many) = (pick("5", 7), pick("50", 7));
        assert!(few.iter().all(|at| many.contains(at)));
    }

    /// The places never change, since a seed may have been written down.
    #[test]
    fn what_a_seed_means_is_fixed() {
        assert_eq!(lot(0, "n1"), 0xf8e4_6110_455c_6e53);
        assert_eq!(lot(12_345, "rack1-n007"), 0x327b8172cbc03db);
    }

    #[test]
    fn everybody_has_a_chance() {
        let mut drawn = [0u32; 200];
        for seed in 0..2_000 {
            pick("10", seed).into_iter().for_each(|at| drawn[at] += 1);
        }
        let (least, most) = (drawn.iter().min().copied(), drawn.iter().max().copied());
        // Each is drawn 100 times on the average, give or take ten.
        assert!(least > Some(55) && most < Some(150), "{least:?} {most:?}");
    }
}
