//! Damage to bytes, for the tests of whatever reads bytes from a link or a disk.
//!
//! The idea: take bytes that are right, and change, cut, lengthen and mix them, over and over,
//! from a seed. A reader may refuse what comes of it or take it for something else, but it must
//! not panic, hang, or ask for memory because a damaged number says so. Every round has a seed of
//! its own, so that one which fails can be played alone.
//!
//! `BARID_DAMAGE_ROUNDS=1000000` plays so many rounds of each test instead of its own number, and
//! `BARID_DAMAGE_SEED=7` others than always. A failure names its round: `BARID_DAMAGE_ROUND=4711`
//! plays it alone. A round that hangs is named as well, and ends the process.
//!
//! Built with counters, what reaches code that nothing before it has reached is damaged further, as
//! AFL and libFuzzer do. A failure is then kept in a file, and `BARID_DAMAGE_FILE=/tmp/...` has it
//! read again:
//!
//! ```sh
//! RUSTFLAGS='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters' BARID_DAMAGE_ROUNDS=5000000 \
//!   cargo test --release --target x86_64-unknown-linux-gnu -p content damage -- --test-threads=1
//! ```
//!
//! It deliberately knows no format, and is for tests alone.

mod corpus;
mod coverage;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use corpus::Corpus;

/// More address space than this is not to be asked for by damaged bytes. What threads and
/// allocators reserve in any case is far below.
const MEMORY: u64 = 2 << 30;
/// A round that takes this long is stuck. Nobody can end it but the end of the process.
const STUCK: Duration = Duration::from_secs(60);

/// Numbers that look random and follow from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below this one, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }

    /// A byte, more often than not one where arithmetic ends.
    pub fn byte(&mut self) -> u8 {
        let any = self.number() as u8;
        [0, 1, 0x7f, 0x80, 0xff, any, any, any][self.below(8)]
    }
}

/// Damages bytes in one to four places; `other` is where foreign pieces come from.
pub fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let until = at + random.below((bytes.len() - at).min(64) + 1);
        match random.below(12) {
            // Bytes and bits changed.
            0..=3 if at < bytes.len() => bytes[at] = random.byte(),
            4 | 5 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            // Put in, taken out.
            6 => bytes.insert(at, random.byte()),
            7 => drop(bytes.drain(at..until)),
            // A piece again, at its place or elsewhere.
            8 => {
                let piece = bytes[at..until].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            // A piece of something else.
            9 => {
                let from = random.below(other.len());
                let length = random.below((other.len() - from).min(64) + 1);
                bytes.splice(at..until, other[from..from + length].iter().copied());
            }
            // Cut off, or longer than it should be. Rarely, or little else would be tried.
            10 if random.below(4) == 0 => bytes.truncate(at),
            11 if random.below(4) == 0 => {
                let more = random.below(300);
                bytes.extend((0..more).map(|_| random.byte()));
            }
            _ => {}
        }
    }
}

/// What a run of rounds came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survived {
    /// Rounds played.
    pub rounds: u64,
    /// Rounds whose bytes were accepted.
    pub accepted: u64,
}

/// Has `read` read every sample, which it must accept, and then damaged ones for so many rounds.
/// It returns whether it accepts the bytes, and panics itself if what it makes of them is wrong.
///
/// # Panics
///
/// If a sample is refused, if a round panics, if address space was asked for without
/// measure, and if everything was accepted, so that nothing was tried.
pub fn survive(
    what: &str,
    samples: &[Vec<u8>],
    rounds: u64,
    mut read: impl FnMut(&[u8]) -> bool,
) -> Survived {
    for (n, sample) in samples.iter().enumerate() {
        assert!(read(sample), "{what}: sample {n} is refused as it is");
    }
    let mut corpus = Corpus::new(samples);
    run(what, rounds, |random| corpus.play(random, &mut read))
}

/// Plays rounds of a test that does its own damage; see [`survive`].
///
/// # Panics
///
/// As [`survive`] does.
pub fn run(what: &str, rounds: u64, mut round: impl FnMut(&mut Random) -> bool) -> Survived {
    let seed = setting("BARID_DAMAGE_SEED").unwrap_or(20_261_127);
    let only = setting("BARID_DAMAGE_ROUND");
    let rounds = match std::env::var_os(corpus::FILE) {
        // In whichever of its ways a test damages its bytes.
        Some(_) => 64,
        None => setting("BARID_DAMAGE_ROUNDS").unwrap_or(rounds),
    };
    let before = address_space();
    let watch = Watch::new(STUCK, {
        let what = what.to_owned();
        move |n| {
            // Past the harness, which would keep it for an end that does not come.
            writeln!(std::io::stderr(), "{what}: round {n} is stuck; {}", alone(seed, n)).ok();
            std::process::abort();
        }
    });
    let mut survived = Survived { rounds: 0, accepted: 0 };
    for n in only.map_or(0..rounds, |only| only..only + 1) {
        let mut random = Random::new(Random::new(seed.wrapping_add(n)).number());
        watch.begin(n);
        let done = catch_unwind(AssertUnwindSafe(|| round(&mut random)));
        let accepted = done.unwrap_or_else(|panic| {
            eprintln!("{what}: {}", alone(seed, n));
            resume_unwind(panic)
        });
        survived.rounds += 1;
        survived.accepted += u64::from(accepted);
        if n % 1024 == 0 {
            bounded(what, n, before);
        }
    }
    bounded(what, rounds, before);
    let all = survived.accepted == survived.rounds;
    assert!(only.is_some() || rounds < 100 || !all, "{what}: whatever is damaged is accepted");
    survived
}

fn alone(seed: u64, round: u64) -> String {
    if let Some(path) = corpus::keep() {
        return format!("BARID_DAMAGE_FILE={} reads this again", path.display());
    }
    format!("BARID_DAMAGE_SEED={seed} BARID_DAMAGE_ROUND={round} plays this alone")
}

/// Looks on from another thread, since a round that hangs can say nothing any more.
struct Watch {
    /// None once it is over.
    rounds: Option<Sender<u64>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Calls `stuck` with the number of a round that takes longer than the limit, and then looks
    /// no more.
    fn new(limit: Duration, stuck: impl FnOnce(u64) + Send + 'static) -> Watch {
        let (rounds, begun) = channel();
        let look = move || {
            let mut round = begun.recv().ok();
            while let Some(n) = round {
                round = match begun.recv_timeout(limit) {
                    Ok(next) => Some(next),
                    Err(RecvTimeoutError::Disconnected) => None,
                    Err(RecvTimeoutError::Timeout) => return stuck(n),
                };
            }
        };
        Watch { rounds: Some(rounds), thread: Some(thread::spawn(look)) }
    }

    /// A round begins, and with that the one before it has ended.
    fn begin(&self, round: u64) {
        // Nobody listens once a round was stuck.
        self.rounds.as_ref().map(|rounds| rounds.send(round).ok());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.rounds = None;
        self.thread.take().map(JoinHandle::join);
    }
}

fn bounded(what: &str, round: u64, before: u64) {
    let more = address_space().saturating_sub(before);
    assert!(more < MEMORY, "{what}: {} MiB of memory by round {round}", more >> 20);
}

/// The most address space that this process has had, in bytes; 0 where nobody says.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: it must be a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length, and as many bytes: what every reader below reads rightly or wrongly.
    fn samples() -> Vec<Vec<u8>> {
        [0_u8, 3, 200].map(|n| [vec![n], vec![7; n.into()]].concat()).into()
    }

    fn whole(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|n| bytes.len() == usize::from(*n) + 1)
    }

    #[test]
    fn what_reads_with_care_survives() {
        let survived = survive("careful", &samples(), 20_000, whole);
        assert!(survived.accepted > 100 && survived.accepted < survived.rounds);
        assert_eq!(
            survive("careful", &samples(), 20_000, whole),
            survived,
            "it follows from a seed"
        );
    }

    #[test]
    fn a_round_that_hangs_is_named() {
        let (tell, told) = channel();
        let watch = Watch::new(Duration::from_millis(50), move |n| tell.send(n).expect("awaited"));
        watch.begin(6);
        watch.begin(7);
        // It hangs until somebody has noticed.
        let named = told.recv_timeout(Duration::from_secs(60));
        // A machine that stands still may have been caught in the round before.
        assert!(named == Ok(7) || named == Ok(6), "{named:?}");

        let (tell, told) = channel::<u64>();
        let watch = Watch::new(STUCK, move |n| tell.send(n).expect("awaited"));
        (0..1_000).for_each(|n| watch.begin(n));
        drop(watch);
        assert!(told.recv().is_err(), "rounds that end are not named");
    }

    #[test]
    fn what_does_not_is_found() {
        type Read = fn(&[u8]) -> bool;
        let careless: [(&str, Read); 4] = [
            ("it slices", |bytes| bytes[1..usize::from(bytes[0]) + 1].len() + 1 == bytes.len()),
            ("it takes anything", |_| true),
            ("it takes nothing", |_| false),
            ("it believes a length", |bytes| {
                let claimed =
                    bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
                let mut room = Vec::<u8>::new();
                room.try_reserve((claimed % (12 << 30)) as usize).is_ok() && whole(bytes)
            }),
        ];
        for (what, read) in careless {
            let found = catch_unwind(|| survive(what, &samples(), 20_000, read));
            assert!(found.is_err(), "{what}");
        }
    }
}
