//! The course of a rollout: which wave goes on, and what is to be done next.
//!
//! A pure machine: it is told the time and how the wave stands, and says what follows. It is kept
//! on disk whenever it has moved, and before anything that follows from it is done. So a wave opens
//! once the gate of the one before it has passed, whatever dies in between: the orders of a wave
//! are not made, and not signed, before that.

use serde::{Deserialize, Serialize};

use super::gate::{Count, Verdict, WaveGate};

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The wave is to be given.
    Due,
    /// It was given, and its hosts answer.
    Given,
    /// All have an outcome, and the gate must go on to hold until then.
    Soaking(u64),
    /// The gate's command decides.
    Checking,
    /// It goes on only if somebody says so.
    Stopped(String),
    /// Somebody has ended it.
    Aborted,
    /// Every wave is over.
    Done,
}

/// A wave, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// How many waves there are.
    waves: usize,
    /// Which one goes on, from 0.
    wave: usize,
    /// Where it is.
    stage: Stage,
    /// Whether no other wave is to open, and the last one not to end.
    paused: bool,
    /// Before this nothing is given; 0: it begins at once.
    #[serde(default)]
    begins_ms: u64,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Give the wave, then say so with [`Course::given`].
    Give,
    /// Run the gate's command, then say how it ended with [`Course::checked`].
    Check,
    /// Look again when something has changed, and at this time.
    Wait(Option<u64>),
    /// It has moved: keep it, and look again.
    Moved,
    /// Nothing, until somebody says so.
    Rest,
}

impl Course {
    /// A rollout that has not begun.
    pub fn new(waves: usize) -> Course {
        Course { waves, wave: 0, stage: Stage::Due, paused: false, begins_ms: 0 }
    }

    /// The same, that begins at this time.
    pub fn beginning(self, begins_ms: u64) -> Course {
        Course { begins_ms, ..self }
    }

    /// When it begins; 0: at once.
    pub fn begins_ms(&self) -> u64 {
        self.begins_ms
    }

    /// Whether its time has not come yet.
    pub fn waits(&self, now_ms: u64) -> bool {
        self.stage == Stage::Due && now_ms < self.begins_ms
    }

    /// Which wave goes on, from 0.
    pub fn wave(&self) -> usize {
        self.wave
    }

    /// Where it is.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Whether no other wave is to open.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether a wave was given whose gate has not passed.
    pub fn is_judged(&self) -> bool {
        matches!(self.stage, Stage::Given | Stage::Soaking(_) | Stage::Checking)
    }

    /// Whether it never goes on again.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Aborted | Stage::Done)
    }

    /// What follows now. `ended`: whether each host of the wave has some outcome.
    pub fn step(&mut self, now_ms: u64, gate: &WaveGate, count: Count, ended: bool) -> Next {
        match self.stage {
            Stage::Due if self.paused => Next::Rest,
            Stage::Due if self.waits(now_ms) => Next::Wait(Some(self.begins_ms)),
            Stage::Due => Next::Give,
            Stage::Given => match gate.judge(count, ended) {
                Verdict::Open => Next::Wait(None),
                Verdict::Fails(why) => self.move_to(Stage::Stopped(why)),
                Verdict::Holds => {
                    let soak = u64::try_from(gate.soak.as_millis()).unwrap_or(u64::MAX);
                    self.move_to(Stage::Soaking(now_ms.saturating_add(soak)))
                }
            },
            // A word that comes late counts as well.
            Stage::Soaking(until_ms) => match gate.judge(count, true) {
                Verdict::Fails(why) => self.move_to(Stage::Stopped(why)),
                _ if now_ms < until_ms => Next::Wait(Some(until_ms)),
                _ if self.is_held() => Next::Rest,
                _ if !gate.check.is_empty() => self.move_to(Stage::Checking),
                _ => self.pass(),
            },
            Stage::Checking => match gate.judge(count, true) {
                Verdict::Fails(why) => self.move_to(Stage::Stopped(why)),
                _ if self.is_held() => Next::Rest,
                _ => Next::Check,
            },
            Stage::Stopped(_) | Stage::Aborted | Stage::Done => Next::Rest,
        }
    }

    /// The wave was given.
    pub fn given(&mut self) {
        if self.stage == Stage::Due {
            self.stage = Stage::Given;
        }
    }

    /// The gate's command has ended well, or says why not.
    pub fn checked(&mut self, result: Result<(), String>) {
        if self.stage == Stage::Checking {
            match result {
                // It is checked once more when it goes on.
                Ok(()) if self.is_held() => {}
                Ok(()) => drop(self.pass()),
                Err(why) => self.stage = Stage::Stopped(why),
            }
        }
    }

    /// Something stands in the way that does not go away by itself.
    pub fn stop(&mut self, why: String) {
        if !self.is_over() {
            self.stage = Stage::Stopped(why);
        }
    }

    /// No other wave opens, and the last one does not end, until [`Course::resume`]. Returns
    /// whether that is new.
    pub fn pause(&mut self) -> bool {
        let can = !self.paused && !self.is_over() && !matches!(self.stage, Stage::Stopped(_));
        self.paused |= can;
        can
    }

    /// It goes on: after a pause where it was, after a stop with the wave at which it stopped.
    /// Returns whether there was anything to go on from.
    pub fn resume(&mut self) -> bool {
        let was_stopped = matches!(self.stage, Stage::Stopped(_));
        if was_stopped {
            self.stage = Stage::Due;
        }
        std::mem::take(&mut self.paused) || was_stopped
    }

    /// Some of the wave had it taken back by a pause: they are to be given it, and then the gate
    /// judges anew.
    pub fn give_again(&mut self) {
        if self.is_judged() {
            self.stage = Stage::Due;
        }
    }

    /// There is another gate: it judges the wave that goes on from the beginning, with all of its
    /// soak and its check.
    pub fn judge_anew(&mut self) {
        if matches!(self.stage, Stage::Soaking(_) | Stage::Checking) {
            self.stage = Stage::Given;
        }
    }

    /// The wave at which it has stopped is taken as good as it is, and the next one opens. Returns
    /// whether it had stopped.
    pub fn accept(&mut self) -> bool {
        let was_stopped = matches!(self.stage, Stage::Stopped(_));
        if was_stopped {
            self.paused = false;
            self.pass();
        }
        was_stopped
    }

    /// Whoever was left out gets it now: the last wave is to be given once more.
    pub fn reopen(&mut self) {
        if self.stage == Stage::Done {
            self.stage = Stage::Due;
        }
    }

    /// It never goes on. Returns whether that is new.
    pub fn abort(&mut self) -> bool {
        let is_new = !self.is_over();
        if is_new {
            self.stage = Stage::Aborted;
        }
        is_new
    }

    /// Whether it is paused where there is no other wave that could wait for the end of the pause.
    fn is_held(&self) -> bool {
        self.paused && self.wave + 1 == self.waves
    }

    fn pass(&mut self) -> Next {
        if self.wave + 1 < self.waves {
            self.wave += 1;
            self.move_to(Stage::Due)
        } else {
            self.move_to(Stage::Done)
        }
    }

    fn move_to(&mut self, stage: Stage) -> Next {
        self.stage = stage;
        Next::Moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WELL: Count = Count { hosts: 2, ok: 2, errors: 0, missed: 0 };
    const BADLY: Count = Count { hosts: 2, ok: 1, errors: 1, missed: 0 };

    fn gate(text: &str) -> WaveGate {
        text.parse().expect("it is a gate")
    }

    #[test]
    fn nothing_is_given_before_its_time() {
        let gate = gate("errors<=0");
        let mut course = Course::new(1).beginning(50);
        assert_eq!(course.step(49, &gate, Count::default(), false), Next::Wait(Some(50)));
        assert!(course.pause());
        assert_eq!(course.step(60, &gate, Count::default(), false), Next::Rest, "it is paused");
        assert!(course.resume());
        assert_eq!(course.step(40, &gate, Count::default(), false), Next::Wait(Some(50)));
        assert_eq!(course.step(50, &gate, Count::default(), false), Next::Give);
        // Kept before there was such a time.
        let old = r#"{"waves":1,"wave":0,"stage":"due","paused":false}"#;
        assert_eq!(serde_json::from_str::<Course>(old).expect("it is one"), Course::new(1));
    }

    #[test]
    fn a_wave_opens_when_the_one_before_it_has_soaked_and_was_checked() {
        let gate = gate("errors<=0 soak=10 check=x");
        let mut course = Course::new(2);
        assert_eq!(course.step(0, &gate, Count::default(), false), Next::Give);
        course.given();
        assert_eq!(course.step(0, &gate, WELL, false), Next::Wait(None));
        assert_eq!(course.step(5, &gate, WELL, true), Next::Moved);
        assert_eq!(course.step(6, &gate, WELL, true), Next::Wait(Some(10_005)));
        assert_eq!(course.step(10_005, &gate, WELL, true), Next::Moved);
        assert_eq!(course.step(10_005, &gate, WELL, true), Next::Check);
        course.checked(Ok(()));
        assert_eq!((course.wave(), course.stage()), (1, &Stage::Due));
        course.given();
        assert_eq!(course.step(20_000, &gate, WELL, true), Next::Moved);
        // A late word, while it soaks.
        assert_eq!(course.step(20_001, &gate, BADLY, true), Next::Moved);
        assert!(matches!(course.stage(), Stage::Stopped(_)));
        assert!(course.resume() && *course.stage() == Stage::Due && course.wave() == 1);
        course.given();
        course.stop("no".into());
        assert!(course.accept() && *course.stage() == Stage::Done);
    }

    #[test]
    fn a_late_word_counts_while_the_check_runs() {
        let gate = gate("errors<=0 check=x");
        let mut course = Course::new(2);
        course.given();
        assert_eq!(course.step(0, &gate, WELL, true), Next::Moved);
        assert_eq!(course.step(0, &gate, WELL, true), Next::Moved);
        assert_eq!((course.step(1, &gate, WELL, true), course.is_judged()), (Next::Check, true));
        assert_eq!(course.step(2, &gate, BADLY, true), Next::Moved);
        assert!(matches!(course.stage(), Stage::Stopped(_)) && !course.is_judged());
        course.checked(Ok(()));
        assert_eq!(course.wave(), 0, "what has stopped stays so");
    }

    #[test]
    fn another_gate_judges_the_wave_under_way_from_the_beginning() {
        let (old, new) = (gate("errors<=1 soak=10"), gate("errors<=1 soak=60 check=x"));
        let mut course = Course::new(2);
        course.given();
        assert_eq!(course.step(0, &old, BADLY, true), Next::Moved);
        assert!(course.pause() && course.resume());
        course.judge_anew();
        assert_eq!(course.step(5_000, &new, BADLY, true), Next::Moved);
        assert_eq!(course.step(10_001, &new, BADLY, true), Next::Wait(Some(65_000)));
        assert_eq!(course.step(65_000, &new, BADLY, true), Next::Moved);
        assert_eq!(course.stage(), &Stage::Checking);
        // The one that runs was of the gate before.
        course.judge_anew();
        course.checked(Ok(()));
        assert_eq!((course.wave(), course.stage()), (0, &Stage::Given));
        let strict = gate("errors<=0");
        assert_eq!(course.step(65_001, &strict, BADLY, true), Next::Moved);
        assert!(matches!(course.stage(), Stage::Stopped(_)));
        course.judge_anew();
        assert!(matches!(course.stage(), Stage::Stopped(_)));
    }

    #[test]
    fn pausing_holds_the_next_wave_only() {
        let gate = gate("errors<=0");
        let mut course = Course::new(2);
        course.given();
        assert!(course.pause() && !course.pause());
        assert_eq!(course.step(0, &gate, WELL, true), Next::Moved);
        assert_eq!(course.step(0, &gate, WELL, true), Next::Moved);
        assert_eq!((course.step(0, &gate, WELL, true), course.wave()), (Next::Rest, 1));
        assert!(course.resume() && !course.resume());
        assert_eq!(course.step(0, &gate, WELL, true), Next::Give);
        assert!(course.abort() && !course.abort() && !course.resume());
        assert_eq!(course.step(0, &gate, WELL, true), Next::Rest);
    }

    #[test]
    fn a_paused_last_wave_does_not_end_and_is_given_again_to_those_who_had_it_taken_back() {
        let gate = gate("errors<=0 check=x");
        let mut course = Course::new(1);
        course.given();
        assert_eq!(course.step(0, &gate, WELL, true), Next::Moved);
        assert_eq!(course.step(0, &gate, WELL, true), Next::Moved);
        assert!(course.pause());
        // The check was running already.
        course.checked(Ok(()));
        assert_eq!(course.step(0, &gate, WELL, true), Next::Rest);
        assert_eq!(course.stage(), &Stage::Checking);
        assert!(course.resume());
        assert_eq!(course.step(0, &gate, WELL, true), Next::Check);
        course.give_again();
        assert_eq!(course.step(0, &gate, WELL, true), Next::Give);
        course.given();
        assert!(course.pause());
        assert_eq!(course.step(0, &gate, WELL, false), Next::Wait(None));
        assert_eq!(course.step(0, &gate, BADLY, false), Next::Moved);
        assert!(matches!(course.stage(), Stage::Stopped(_)));
        course.give_again();
        assert!(matches!(course.stage(), Stage::Stopped(_)));
    }

    #[derive(Clone, Debug)]
    enum Happens {
        Step { ok: u64, errors: u64, ended: bool },
        Given,
        Checked(bool),
        Pause,
        Resume,
        Later(u64),
        Restart,
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            6 => (0..=2u64, 0..=2u64, any::<bool>())
                .prop_map(|(ok, errors, ended)| Happens::Step { ok, errors, ended }),
            3 => Just(Happens::Given),
            2 => any::<bool>().prop_map(Happens::Checked),
            1 => Just(Happens::Pause),
            1 => Just(Happens::Resume),
            2 => (0..2_000u64).prop_map(Happens::Later),
            1 => Just(Happens::Restart),
        ]
    }

    proptest! {
        /// However it goes, a wave is given only if the one before it was seen to pass: all its
        /// hosts with an outcome, no error, a second of soak after that, and a good check.
        #[test]
        fn no_wave_opens_before_the_gate_of_the_one_before(
            story in proptest::collection::vec(happens(), 0..120),
        ) {
            let gate = gate("errors<=0 soak=1 check=x");
            let mut course = Course::new(4);
            let (mut now, mut passed) = (0u64, 0usize);
            let (mut held_since, mut well_checked) = (None::<u64>, false);
            for happens in story {
                let wave = course.wave();
                match happens {
                    Happens::Step { ok, errors, ended } => {
                        let ok = ok.min(2 - errors);
                        let missed = if ended { 2 - ok - errors } else { 0 };
                        let holds = errors == 0 && ended;
                        let before = course.stage().clone();
                        let count = Count { hosts: 2, ok, errors, missed };
                        let next = course.step(now, &gate, count, ended);
                        if before == Stage::Given {
                            held_since = holds.then_some(now);
                        } else if errors > 0 && matches!(before, Stage::Soaking(_)) {
                            held_since = None;
                        }
                        if next == Next::Check {
                            let since = held_since.expect("nothing is checked that did not hold");
                            prop_assert!(now >= since + 1_000);
                        }
                        if next == Next::Give {
                            prop_assert!(wave <= passed);
                        }
                    }
                    Happens::Given => course.given(),
                    Happens::Checked(well) => {
                        let asked = *course.stage() == Stage::Checking;
                        course.checked(if well { Ok(()) } else { Err("no".into()) });
                        well_checked = asked && well;
                    }
                    Happens::Pause => drop(course.pause()),
                    Happens::Resume => drop(course.resume()),
                    Happens::Later(ms) => now += ms,
                    Happens::Restart => {
                        let kept = serde_json::to_vec(&course).expect("it is plain");
                        course = serde_json::from_slice(&kept).expect("as it was written");
                    }
                }
                if course.wave() > wave {
                    prop_assert!(well_checked && course.wave() == wave + 1);
                    passed += 1;
                }
            }
        }
    }
}
