//! Whether enough comes of a host to go on waiting for it.
//!
//! A host that sends a little now and then would keep its turn for ever. What counts is what it
//! was asked for, after decoding, and only the time that was spent waiting for it: a slow disk
//! here is nobody's fault there. On a thin link an item is long on its way; what has come of it
//! counts at once, as far as an item that is not whole can go.

use std::time::Duration;

use protos::ITEM_LIMIT;

/// Bytes a second that a host sends at least: well below a share of the thinnest link there can
/// be, which carries a thousand.
const LEAST: u64 = 256;
/// Bytes that may have come and be no items yet: an item of full length, what the decoder holds
/// back before it, and what two broken answers have left.
const AHEAD: u64 = 4 * ITEM_LIMIT as u64;
/// While it looks at what it has, a host says every 5 s how far it is.
const SHORTEST: Duration = Duration::from_secs(15);
/// Answers that may break off before enough has come.
const BREAKS: u32 = 64;
/// How long a host may look at what it has.
const LOOKING: Duration = Duration::from_secs(6 * 3600);

/// What has come of one host.
pub(super) struct Pace {
    /// For how long too little may come.
    limit: Duration,
    /// Since enough has come last.
    waited: Duration,
    bytes: u64,
    /// What has come, has counted, and is no item yet.
    ahead: u64,
    breaks: u32,
    /// For how long it has been looking, and what it has looked at.
    looking: Duration,
    looked: u64,
}

impl Pace {
    /// For a host that may send nothing for so long.
    pub(super) fn new(reach: Duration) -> Pace {
        let (limit, zero) = (reach.max(SHORTEST), Duration::ZERO);
        Pace { limit, waited: zero, bytes: 0, ahead: 0, breaks: 0, looking: zero, looked: 0 }
    }

    /// How long it is worth waiting for more; nothing: too little has come.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited)
    }

    /// So long nothing came.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
        self.looking += time;
    }

    /// So many bytes have come, not decoded yet. Says how many of them count.
    pub(super) fn arrived(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.min(AHEAD - self.ahead);
        self.ahead += bytes;
        self.count(bytes);
        bytes
    }

    /// Something that was asked for is whole. What has counted as it arrived does not count again.
    pub(super) fn came(&mut self, bytes: u64) {
        let before = self.ahead.min(bytes);
        self.ahead -= before;
        self.count(bytes - before);
    }

    fn count(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= LEAST.saturating_mul(self.limit.as_secs()) {
            (self.bytes, self.breaks, self.waited) = (0, 0, Duration::ZERO);
        }
    }

    /// It has looked at so many files and bytes, as it says.
    pub(super) fn looked(&mut self, files: u64, bytes: u64) {
        let all = files.saturating_mul(LEAST).saturating_add(bytes);
        if self.looking < LOOKING {
            self.count(all.saturating_sub(self.looked));
        }
        self.looked = self.looked.max(all);
    }

    /// An answer broke off. Says whether it is worth asking once more.
    pub(super) fn broke(&mut self) -> bool {
        self.breaks += 1;
        self.breaks < BREAKS && !self.left().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many seconds it lasts if every second that comes brings this.
    fn lasts(mut pace: Pace, most: u32, each: impl Fn(&mut Pace, u64)) -> u32 {
        for n in 0..most {
            if pace.left().is_zero() {
                return n;
            }
            pace.waited(SECOND);
            each(&mut pace, n.into());
        }
        most
    }

    #[test]
    fn whoever_drips_is_not_waited_for() {
        let pace = || Pace::new(20 * SECOND);
        assert_eq!(lasts(pace(), 1000, |_, _| ()), 20, "nothing comes");
        assert_eq!(lasts(pace(), 1000, |pace, _| pace.came(100)), 20, "a little comes");
        assert_eq!(lasts(pace(), 1000, |pace, _| pace.came(LEAST)), 1000, "enough comes");
        let late = |pace: &mut Pace, n| pace.came(if n % 19 == 18 { 1 << 20 } else { 0 });
        assert_eq!(lasts(pace(), 1000, late), 1000, "much comes now and then");
        // What an impatient operator says is for hosts that are away.
        assert_eq!(lasts(Pace::new(SECOND), 1000, |_, _| ()), 15);
    }

    #[test]
    fn items_count_on_their_way_and_what_is_never_one_does_not() {
        // Two hosts behind 48 kbit/s, with pieces of full length that do not compress.
        let thin = |pace: &mut Pace, n| {
            pace.arrived(3_000);
            if n % 88 == 87 {
                pace.came(88 * 3_000);
            }
        };
        assert_eq!(lasts(Pace::new(15 * SECOND), 10_000, thin), 10_000);
        let never = |pace: &mut Pace, _| {
            pace.arrived(3_000);
        };
        let lasted = lasts(Pace::new(15 * SECOND), 10_000, never);
        assert!(lasted < 400, "{lasted}");
        // An item counts once.
        let mut pace = Pace::new(15 * SECOND);
        pace.arrived(3_000);
        pace.came(3_000);
        assert_eq!((pace.bytes, pace.ahead), (3_000, 0));
    }

    #[test]
    fn whoever_looks_at_what_it_has_gets_on_with_it() {
        let pace = || Pace::new(20 * SECOND);
        let reads = |pace: &mut Pace, n| pace.looked(0, n << 20);
        assert_eq!(lasts(pace(), 20_000, reads), 20_000);
        assert_eq!(lasts(pace(), 1000, |pace, _| pace.looked(7, 1 << 20)), 21, "the same again");
        assert!(lasts(pace(), 1 << 20, reads) < (1 << 20), "not for ever");
    }

    #[test]
    fn an_answer_that_breaks_off_again_and_again_is_not_asked_for_for_ever() {
        let mut pace = Pace::new(20 * SECOND);
        let tries = |pace: &mut Pace, each: u64| {
            (0..1000)
                .take_while(|_| {
                    pace.came(each);
                    pace.broke()
                })
                .count()
        };
        assert_eq!(tries(&mut pace, LEAST * 20), 1000, "it gets on");
        assert!(tries(&mut pace, 1) < 100);
    }
}
