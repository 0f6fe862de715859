//! The gate between two waves: what a wave must have come to before the next one opens.
//!
//! Written as `ok>=98% errors<=1% missed<=5% soak=10m check="COMMAND"`. Shares are of the hosts of
//! the wave: what must be reached is rounded up, what may be spent is rounded down, so that of one
//! host 98 % are one, and 1 % is none. Here is only what a gate says of numbers; who waits, and who
//! runs the command, is with `course` and `driver`.

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use timing::{digits, duration};

/// The longest soak: content is kept, and somebody has to remember.
const LONGEST_SOAK: Duration = Duration::from_secs(30 * 24 * 3600);
/// What holds if a gate says nothing of outcomes.
const ERRORS: Share = Share::Part(100);
const MISSED: Share = Share::Part(1_000);

/// So many hosts, or such a part of them in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// A number of hosts.
    Count(u64),
    /// At most 10,000, which is all of them.
    Part(u32),
}

impl Share {
    /// Of so many hosts, rounded up.
    fn at_least(self, of: u64) -> u64 {
        match self {
            Share::Count(count) => count,
            Share::Part(part) => (of * u64::from(part)).div_ceil(10_000),
        }
    }

    /// Of so many hosts, rounded down.
    pub(crate) fn at_most(self, of: u64) -> u64 {
        match self {
            Share::Count(count) => count,
            Share::Part(part) => of * u64::from(part) / 10_000,
        }
    }

    /// Reads `3`, `5%`, `99.5%`.
    pub(crate) fn parse(text: &str) -> Option<Share> {
        let Some(percent) = text.strip_suffix('%') else {
            return digits(text).map(Share::Count);
        };
        let (whole, fraction) = percent.split_once('.').unwrap_or((percent, "0"));
        if fraction.is_empty() || fraction.len() > 2 {
            return None;
        }
        let scale = if fraction.len() == 1 { 10 } else { 1 };
        let part = digits(whole)?.checked_mul(100)? + digits(fraction)? * scale;
        u32::try_from(part).ok().filter(|part| *part <= 10_000).map(Share::Part)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Count(count) => write!(f, "{count}"),
            Share::Part(part) => match (part / 100, part % 100) {
                (whole, 0) => write!(f, "{whole}%"),
                (whole, rest) if rest % 10 == 0 => write!(f, "{whole}.{}%", rest / 10),
                (whole, rest) => write!(f, "{whole}.{rest:02}%"),
            },
        }
    }
}

/// What a wave must have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaveGate {
    /// At least so many are ok.
    pub ok: Option<Share>,
    /// At most so many have failed, at the host itself.
    pub errors: Option<Share>,
    /// At most so many were not reached, or not heard of to the end.
    pub missed: Option<Share>,
    /// Of any one site at most so many may have failed; then it is left out from there on.
    pub site_errors: Option<Share>,
    /// How long all this must go on to hold.
    pub soak: Duration,
    /// Then this line for the shell of the controller must end well; empty: nothing is run.
    pub check: String,
}

impl Default for WaveGate {
    fn default() -> WaveGate {
        WaveGate {
            ok: None,
            errors: Some(ERRORS),
            missed: Some(MISSED),
            site_errors: None,
            soak: Duration::ZERO,
            check: String::new(),
        }
    }
}

/// A text that is no gate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GateError {
    /// A word of it is no condition.
    #[error("gate: {0:?} is no condition")]
    Word(String),
    /// The number of a condition is none.
    #[error("gate: {word:?}: {value:?} is neither a number nor a percentage up to 100%")]
    Share {
        /// The condition.
        word: String,
        /// What is no number.
        value: String,
    },
    /// How long it soaks is no time.
    #[error("gate: soak={0:?} is no time up to 30d, as in 90s, 10m, 2h or 1d")]
    Soak(String),
    /// A condition is there twice.
    #[error("gate: {0} is there twice")]
    Twice(&'static str),
    /// A quote is not closed.
    #[error("gate: the quote of {0:?} is not closed")]
    Quote(String),
    /// There is nothing to run.
    #[error("gate: check= names no command")]
    NoCheck,
}

impl std::str::FromStr for WaveGate {
    type Err = GateError;

    fn from_str(text: &str) -> Result<WaveGate, GateError> {
        let (mut ok, mut errors, mut missed, mut site_errors) = (None, None, None, None);
        let (mut soak, mut check) = (None, None);
        for word in words(text)? {
            let limits = [
                ("ok>=", "ok", &mut ok),
                ("errors<=", "errors", &mut errors),
                ("missed<=", "missed", &mut missed),
                ("site-errors<=", "site-errors", &mut site_errors),
            ];
            if let Some((prefix, name, slot)) =
                limits.into_iter().find(|(prefix, ..)| word.starts_with(prefix))
            {
                let value = &word[prefix.len()..];
                let share = Share::parse(value)
                    .ok_or_else(|| GateError::Share { word: word.clone(), value: value.into() })?;
                once(name, slot, share)?;
            } else if let Some(value) = word.strip_prefix("soak=") {
                let time = duration(value).filter(|time| *time <= LONGEST_SOAK);
                once("soak", &mut soak, time.ok_or_else(|| GateError::Soak(value.into()))?)?;
            } else if let Some(value) = word.strip_prefix("check=") {
                if value.trim().is_empty() {
                    return Err(GateError::NoCheck);
                }
                once("check", &mut check, value.to_owned())?;
            } else {
                return Err(GateError::Word(word));
            }
        }
        if ok.is_none() && errors.is_none() && missed.is_none() {
            (errors, missed) = (Some(ERRORS), Some(MISSED));
        }
        let (soak, check) = (soak.unwrap_or_default(), check.unwrap_or_default());
        Ok(WaveGate { ok, errors, missed, site_errors, soak, check })
    }
}

fn once<T>(name: &'static str, slot: &mut Option<T>, value: T) -> Result<(), GateError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(GateError::Twice(name)),
    }
}

/// The words of a text: between blanks, but for those within quotes. Within double quotes a
/// backslash takes the meaning from a quote and a backslash.
fn words(text: &str) -> Result<Vec<String>, GateError> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(letter);
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', Some('"')) if matches!(letters.peek(), Some('"' | '\\')) => {
                word.get_or_insert_default().extend(letters.next());
            }
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(GateError::Quote(word.unwrap_or_default()));
    }
    words.extend(word);
    Ok(words)
}

/// How a wave stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many hosts it has.
    pub hosts: u64,
    /// How many are ok.
    pub ok: u64,
    /// How many have failed.
    pub errors: u64,
    /// How many were not reached, or not heard of to the end, or had it taken back.
    pub missed: u64,
}

impl Count {
    /// Of whom there is no word at all.
    pub fn pending(&self) -> u64 {
        self.hosts.saturating_sub(self.ok + self.errors + self.missed)
    }
}

/// What a gate says of a wave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It cannot be said yet.
    Open,
    /// It holds.
    Holds,
    /// It does not, and will not.
    Fails(String),
}

impl WaveGate {
    /// Judges a wave. `ended`: whether each of its hosts has some outcome.
    pub fn judge(&self, count: Count, ended: bool) -> Verdict {
        let Count { hosts, ok, errors, missed } = count;
        let fails = |what: String, limit: String| Verdict::Fails(format!("{what}; {limit}"));
        if let Some(limit) = self.errors.filter(|limit| errors > limit.at_most(hosts)) {
            let limit = format!("the gate allows {} (errors<={limit})", limit.at_most(hosts));
            return fails(format!("{errors} of {hosts} hosts have failed"), limit);
        }
        // A host's own failure is its last word; whoever was missed may still be heard of.
        let least = self.ok.map_or(0, |least| least.at_least(hosts));
        let reachable = if ended { ok } else { hosts.saturating_sub(errors) };
        if let Some(share) = self.ok.filter(|_| reachable < least) {
            let limit = format!("the gate wants {least} (ok>={share})");
            let what = match ended {
                true => format!("{ok} of {hosts} hosts are ok"),
                false => format!("no more than {reachable} of {hosts} hosts can be ok"),
            };
            return fails(what, limit);
        }
        if !ended {
            return Verdict::Open;
        }
        if let Some(limit) = self.missed.filter(|limit| missed > limit.at_most(hosts)) {
            let limit = format!("the gate allows {} (missed<={limit})", limit.at_most(hosts));
            return fails(format!("{missed} of {hosts} hosts were missed"), limit);
        }
        Verdict::Holds
    }

    /// Why a wave of so many hosts can never pass, if so.
    pub(crate) fn impossible(&self, hosts: u64) -> Option<String> {
        let least = self.ok.map_or(0, |least| least.at_least(hosts));
        let share = self.ok.filter(|_| least > hosts)?;
        Some(format!("it has {hosts}, and the gate wants {least} of them ok (ok>={share})"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gate(text: &str) -> WaveGate {
        text.parse().expect("it is a gate")
    }

    #[test]
    fn gates_are_read() {
        let all =
            gate("ok>=98% errors<=1 missed<=0.5% site-errors<=2 soak=1h30m check=\"a \\\"b\"");
        assert_eq!(all.ok, Some(Share::Part(9_800)));
        assert_eq!((all.errors, all.missed), (Some(Share::Count(1)), Some(Share::Part(50))));
        assert_eq!((all.site_errors, all.soak.as_secs()), (Some(Share::Count(2)), 5_400));
        assert_eq!(all.check, "a \"b");
        assert_eq!(gate("soak=5"), WaveGate { soak: Duration::from_secs(5), ..gate("") });
        assert_eq!(gate(""), WaveGate::default());
        // Whoever says anything of outcomes says all of it.
        assert_eq!(gate("ok>=50%").errors, None);
        assert_eq!(gate("check='x y'").check, "x y");
    }

    #[test]
    fn what_is_no_gate_is_named() {
        for (text, says) in [
            ("ok>=101%", "\"101%\" is neither"),
            ("ok>=-1", "neither"),
            ("errors<=", "neither"),
            ("ok=98%", "\"ok=98%\" is no condition"),
            ("faster", "no condition"),
            ("ok>=1 ok>=2", "ok is there twice"),
            ("soak=never", "is no time"),
            ("soak=31d", "up to 30d"),
            ("soak=5x", "is no time"),
            ("check=", "names no command"),
            ("check=\"a", "is not closed"),
            ("missed<=1.234%", "neither"),
        ] {
            let error = text.parse::<WaveGate>().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn waves_are_judged() {
        let check = |text: &str, (hosts, ok, errors, missed), ended, verdict: &str| {
            let told = match gate(text).judge(Count { hosts, ok, errors, missed }, ended) {
                Verdict::Open => "open".into(),
                Verdict::Holds => "holds".into(),
                Verdict::Fails(why) => why,
            };
            assert!(told.contains(verdict), "{text}: {told}");
        };
        check("", (1, 1, 0, 0), true, "holds");
        check("", (1, 0, 1, 0), false, "1 of 1 hosts have failed; the gate allows 0 (errors<=1%)");
        check("", (1, 0, 0, 1), false, "open");
        check("", (1, 0, 0, 1), true, "1 of 1 hosts were missed");
        check("", (100, 98, 1, 1), true, "holds");
        check("ok>=98%", (50, 48, 2, 0), true, "48 of 50 hosts are ok; the gate wants 49");
        check("ok>=98%", (50, 0, 2, 0), false, "no more than 48 of 50 hosts can be ok");
        check("ok>=98%", (50, 10, 1, 3), false, "open");
        check("ok>=0", (5, 0, 5, 0), true, "holds");
    }

    #[test]
    fn what_can_never_pass_is_known_before() {
        assert!(gate("ok>=5").impossible(1).is_some());
        assert!(gate("ok>=100% errors<=0").impossible(1).is_none());
    }

    proptest! {
        #[test]
        fn shares_are_read_as_they_are_written(part in 0..=10_000u32, count: u32) {
            for share in [Share::Part(part), Share::Count(count.into())] {
                prop_assert_eq!(Share::parse(&share.to_string()), Some(share));
            }
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            text.parse::<WaveGate>().ok();
        }

        /// A verdict that comes early is the one that comes at the end, whatever else happens.
        #[test]
        fn early_verdicts_stand(
            ok in 0..=10_000u32, errors in 0..=10_000u32,
            hosts in 1..200u64, failed in 0..200u64, rest in 0..200u64,
        ) {
            let gate = WaveGate {
                ok: Some(Share::Part(ok)),
                errors: Some(Share::Part(errors)),
                ..WaveGate::default()
            };
            let failed = failed.min(hosts);
            let early = Count { hosts, errors: failed, ..Count::default() };
            if let Verdict::Fails(_) = gate.judge(early, false) {
                let ok = rest.min(hosts - failed);
                let late = Count { hosts, ok, errors: failed, missed: hosts - failed - ok };
                prop_assert!(matches!(gate.judge(late, true), Verdict::Fails(_)));
            }
        }
    }
}
