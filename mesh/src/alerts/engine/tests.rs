//! The engine of alerts, tried.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::alerts::{Above, Missing, Severity};
use crate::{Event, HostId, Peer};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn pace() -> Pace {
    Pace {
        clear: secs(10),
        gather: secs(5),
        repeat: secs(1_000),
        damp: secs(600),
        ..Pace::default()
    }
}

fn condition(key: &str) -> Condition {
    Condition {
        key: key.into(),
        kind: "lost".into(),
        group: "lyon".into(),
        severity: Severity::Warning,
        labels: BTreeMap::from([("host".into(), key.into())]),
        summary: format!("{key} is lost"),
        hold: secs(10),
        cause: None,
    }
}

fn behind(key: &str, cause: &str) -> Condition {
    Condition { cause: Some(cause.into()), ..condition(key) }
}

/// An engine, its clock, and all that it has told so far as `+key`, `=key`, `-key`.
struct Desk {
    engine: Engine,
    now: Time,
    told: Vec<String>,
    kept: BTreeMap<String, Alert>,
}

impl Desk {
    fn new() -> Desk {
        let engine = Engine::new(pace(), [], [], Time::ZERO);
        Desk { engine, now: Time::ZERO, told: Vec::new(), kept: BTreeMap::new() }
    }

    fn set(&mut self, conditions: Vec<Condition>) {
        self.engine.set(self.now, "tree", conditions, &|_| None);
        self.drain();
    }

    fn hold(&mut self, keys: &[&str]) {
        self.set(keys.iter().map(|key| condition(key)).collect());
    }

    /// Lets this many seconds pass, woken whenever the engine wants to be.
    fn pass(&mut self, seconds: u64) {
        let until = self.now + secs(seconds);
        let mut wakes = 0;
        while let Some(at) = self.engine.poll_timeout(self.now).filter(|at| *at <= until) {
            assert!(at > self.now, "it wants to be woken in the past");
            self.now = at;
            self.engine.handle_timeout(at);
            self.drain();
            wakes += 1;
            assert!(wakes < 10_000, "it is restless");
        }
        self.now = until;
    }

    fn drain(&mut self) {
        while let Some(step) = self.engine.poll_step() {
            match step {
                Step::Tell(notice) => {
                    let sign = |news| match news {
                        News::Firing => '+',
                        News::Again => '=',
                        News::Over => '-',
                    };
                    let words = notice.alerts.iter();
                    let words =
                        words.map(|(news, a)| format!("{}{}", sign(*news), a.condition.key));
                    self.told.push(words.collect::<Vec<_>>().join(" "));
                }
                Step::Changed(alert) => {
                    self.kept.insert(alert.condition.key.clone(), *alert);
                }
                Step::Forgotten(key) => drop(self.kept.remove(&key)),
            }
        }
    }

    fn firing(&self) -> Vec<&str> {
        let firing = self.engine.alerts().filter(|alert| alert.is_firing());
        firing.map(|alert| alert.condition.key.as_str()).collect()
    }

    #[track_caller]
    fn says(&mut self, told: &[&str]) {
        assert_eq!(std::mem::take(&mut self.told), told);
    }
}

#[test]
fn pending_then_firing_then_over() {
    let mut desk = Desk::new();
    desk.hold(&["a"]);
    desk.pass(9);
    assert!(desk.firing().is_empty());
    desk.pass(1);
    assert_eq!(desk.firing(), ["a"]);
    desk.says(&[]);
    desk.pass(5);
    desk.says(&["+a"]);
    // Back for a moment only: it is the same alert still.
    desk.hold(&[]);
    desk.pass(9);
    desk.hold(&["a"]);
    desk.pass(20);
    assert_eq!(desk.firing(), ["a"]);
    desk.says(&[]);
    desk.pass(1_000);
    desk.says(&["=a"]);
    desk.hold(&[]);
    desk.pass(10);
    assert!(desk.firing().is_empty());
    desk.pass(5);
    desk.says(&["-a"]);
    desk.pass(100_000);
    desk.says(&[]);
    assert!(desk.kept.contains_key("a"), "it is remembered");
    desk.pass(7 * 24 * 3600);
    assert!(desk.kept.is_empty() && desk.engine.alerts().next().is_none());
}

#[test]
fn what_does_not_last_leaves_no_trace() {
    let mut desk = Desk::new();
    for _ in 0..50 {
        desk.hold(&["a"]);
        desk.pass(8);
        desk.hold(&[]);
        desk.pass(3);
    }
    desk.says(&[]);
    assert!(desk.kept.is_empty() && desk.engine.alerts().next().is_none());
}

#[test]
fn what_comes_together_is_told_together_and_the_worst_first() {
    let mut desk = Desk::new();
    let critical = Condition { severity: Severity::Critical, ..condition("z") };
    let elsewhere = Condition { group: "oslo".into(), ..condition("o") };
    desk.set(vec![condition("a"), critical.clone(), elsewhere.clone()]);
    desk.pass(3);
    desk.set(vec![condition("a"), critical, elsewhere, condition("b")]);
    desk.pass(12);
    desk.says(&["+z +a +b", "+o"]);
}

#[test]
fn restless_alerts_are_told_once_and_their_end_after_a_long_rest() {
    let mut desk = Desk::new();
    for _ in 0..12 {
        desk.hold(&["a"]);
        desk.pass(30);
        desk.hold(&[]);
        desk.pass(30);
    }
    desk.says(&["+a", "-a", "+a"]);
    desk.pass(560);
    desk.says(&[]);
    desk.pass(20);
    desk.says(&["-a"]);
}

#[test]
fn a_larger_cause_keeps_others_quiet_and_gives_them_time_after_it() {
    let mut desk = Desk::new();
    desk.set(vec![condition("relay"), behind("a", "relay"), behind("b", "relay")]);
    desk.pass(100);
    assert_eq!(desk.firing(), ["relay"]);
    desk.says(&["+relay"]);
    // The relay is back, a is not.
    desk.set(vec![Condition { hold: secs(60), ..condition("a") }]);
    desk.pass(59);
    assert!(desk.firing().is_empty(), "{:?}", desk.firing());
    desk.says(&["-relay"]);
    desk.pass(6);
    desk.says(&["+a"]);
    // Now a is known to be lost; that its relay is lost again changes nothing about that.
    let relay = || vec![condition("relay")];
    let explained = |_: &Condition| Some("relay".to_string());
    desk.engine.set(desk.now, "tree", relay(), &explained);
    desk.pass(100);
    assert_eq!(desk.firing(), ["relay"]);
    desk.says(&["+relay"]);
    desk.hold(&["a"]);
    desk.pass(100);
    assert_eq!(desk.firing(), ["a"]);
    desk.hold(&[]);
    desk.pass(700);
    // The relay was lost twice, so its end needs longer to be believed.
    desk.says(&["-a", "-relay"]);
}

#[test]
fn each_source_speaks_for_itself() {
    let mut desk = Desk::new();
    desk.hold(&["a"]);
    desk.engine.set(desk.now, "disk", vec![condition("d")], &|_| None);
    desk.pass(20);
    desk.says(&["+a +d"]);
    desk.engine.set(desk.now, "disk", Vec::new(), &|_| None);
    desk.pass(20);
    desk.says(&["-d"]);
    assert_eq!(desk.firing(), ["a"]);
}

fn silence(id: &str, host: &str, from: u64, until: u64) -> Silence {
    Silence {
        id: id.into(),
        labels: BTreeMap::from([("host".into(), BTreeSet::from([host.into()]))]),
        from: Time(secs(from)),
        until: Time(secs(until)),
        author: "ann".into(),
        reason: "works".into(),
    }
}

#[test]
fn a_silence_hides_nothing_and_what_outlasts_it_is_told() {
    let mut desk = Desk::new();
    assert!(desk.engine.silence(desk.now, silence("1", "a", 0, 500)));
    assert!(desk.engine.silence(desk.now, silence("2", "b", 200, 300)));
    desk.hold(&["a", "b"]);
    desk.pass(100);
    assert_eq!(desk.firing(), ["a", "b"]);
    desk.says(&["+b"]);
    // Who was told that it is on is told that it is over, in a window as well.
    desk.pass(100);
    desk.hold(&["a"]);
    desk.pass(290);
    desk.says(&["-b"]);
    desk.pass(20);
    desk.says(&["+a"]);
    assert_eq!(desk.engine.silences().iter().count(), 0);
    assert!(!desk.engine.unsilence(desk.now, "1"));
}

#[test]
fn whoever_has_taken_an_alert_upon_himself_is_not_told_again() {
    let mut desk = Desk::new();
    desk.hold(&["a"]);
    desk.pass(15);
    assert_eq!(desk.engine.ack(desk.now, "b", "ann", ""), Err(AckError::Unknown));
    assert_eq!(desk.engine.ack(desk.now, "a", "ann", "on my way"), Ok(()));
    desk.pass(5_000);
    desk.says(&["+a"]);
    desk.hold(&[]);
    desk.pass(20);
    desk.says(&["-a"]);
    assert_eq!(desk.engine.ack(desk.now, "a", "ann", ""), Err(AckError::Over));
    // The next time is another matter.
    desk.hold(&["a"]);
    desk.pass(20);
    desk.says(&["+a"]);
}

#[test]
fn after_a_restart_nothing_is_told_twice_and_ends_are_told() {
    let mut desk = Desk::new();
    desk.hold(&["a", "b"]);
    desk.pass(20);
    desk.says(&["+a +b"]);
    let kept: Vec<_> = desk.kept.into_values().collect();
    let mut desk = Desk { engine: Engine::new(pace(), kept, [], Time(secs(25))), ..Desk::new() };
    desk.now = Time(secs(25));
    desk.hold(&["a"]);
    desk.pass(30);
    assert_eq!(desk.firing(), ["a"]);
    desk.says(&["-b"]);
    // A clock that was ahead when they were kept.
    let kept: Vec<_> = desk.engine.alerts().cloned().collect();
    let mut desk = Desk { engine: Engine::new(pace(), kept, [], Time(secs(1))), ..Desk::new() };
    desk.now = Time(secs(1));
    desk.hold(&["a"]);
    desk.pass(1_010);
    desk.says(&["=a"]);
}

#[test]
fn what_was_thought_to_end_just_when_it_was_kept_does_not_end_by_a_restart() {
    let mut desk = Desk::new();
    desk.hold(&["a"]);
    desk.pass(20);
    desk.says(&["+a"]);
    desk.hold(&[]);
    desk.engine.ack(desk.now, "a", "eva", "").expect("it fires");
    desk.drain();
    desk.hold(&["a"]);
    let kept: Vec<_> = desk.kept.into_values().collect();
    assert!(kept[0].ended.is_some(), "so it was kept");
    let mut desk = Desk { engine: Engine::new(pace(), kept, [], Time(secs(900))), ..Desk::new() };
    desk.now = Time(secs(900));
    desk.hold(&["a"]);
    assert_eq!(desk.firing(), ["a"]);
    desk.hold(&[]);
    desk.pass(920);
    assert_eq!(desk.firing(), [""; 0]);
}

#[test]
fn who_may_have_been_told_by_a_process_that_died_is_told_of_the_end() {
    let mut desk = Desk::new();
    desk.hold(&["a", "b"]);
    desk.pass(12);
    // Both fire; whether it was told just before the end nobody knows.
    desk.says(&[]);
    let kept: Vec<_> = desk.kept.into_values().collect();
    let quiet = silence("1", "b", 0, 500);
    for (silences, told) in [(vec![], &["+a", "-b"][..]), (vec![quiet], &["+a"])] {
        let engine = Engine::new(pace(), kept.clone(), silences, Time(secs(25)));
        let mut desk = Desk { engine, now: Time(secs(25)), ..Desk::new() };
        desk.hold(&["a"]);
        desk.pass(35);
        desk.says(told);
        desk.pass(900);
        desk.says(&[]);
    }
}

#[test]
fn limits_count_what_has_no_place() {
    let mut desk = Desk::new();
    desk.engine.set_pace(desk.now, Pace { alerts: 3, ..pace() });
    desk.hold(&["a", "b", "c", "d", "e"]);
    assert_eq!(desk.engine.crowded(), 2);
    desk.pass(20);
    desk.says(&["+a +b +c"]);
    desk.engine.set(desk.now, OWN, vec![condition("crowded")], &|_| None);
    assert!(desk.engine.alert("crowded").is_some(), "what says so has a place");
    assert_eq!(desk.engine.crowded(), 2);
    desk.engine.set(desk.now, OWN, Vec::new(), &|_| None);
    desk.hold(&[]);
    assert_eq!(desk.engine.crowded(), 0);
    desk.pass(20);
    desk.hold(&["f"]);
    assert!(desk.engine.alert("f").is_some(), "what is over makes room");
}

#[test]
fn what_fires_while_nobody_can_be_told_is_told_when_somebody_can() {
    let mut desk = Desk::new();
    desk.engine.set_audience(desk.now, |_| false);
    desk.hold(&["a", "b"]);
    desk.pass(100);
    desk.hold(&["a"]);
    desk.pass(100);
    assert_eq!(desk.firing(), ["a"]);
    desk.says(&[]);
    desk.engine.set_audience(desk.now, |_| true);
    desk.pass(5);
    desk.says(&["+a"]);
    // What was told and ends unheard does not stay for ever.
    desk.engine.set_audience(desk.now, |_| false);
    desk.hold(&[]);
    desk.pass(8 * 24 * 3600);
    desk.says(&[]);
    assert!(desk.kept.is_empty() && desk.engine.alerts().next().is_none());
}

#[test]
fn what_nobody_listens_to_does_not_count_as_told() {
    let mut desk = Desk::new();
    desk.engine.set_audience(desk.now, |alert| alert.condition.key == "b");
    desk.hold(&["a", "b"]);
    desk.pass(100);
    desk.says(&["+b"]);
    assert!(desk.engine.alert("a").is_some_and(|alert| alert.told.is_none()));
    // A channel that takes it comes later: now it is news.
    desk.engine.set_audience(desk.now, |_| true);
    desk.pass(5);
    desk.says(&["+a"]);
}

#[test]
fn silences_that_have_ended_take_no_place_and_are_named() {
    let long = |n: u64, until| silence(&format!("{n:04}"), "a", 0, until);
    let old = (0..1_500).map(|n| long(n, 10));
    let now = Time(secs(20));
    let mut engine = Engine::new(pace(), [], old.chain([long(2_000, 30)]), now);
    assert_eq!(engine.silences().iter().count(), 1);
    assert_eq!(std::iter::from_fn(|| engine.poll_ended()).count(), 1_500);
    engine.handle_timeout(Time(secs(30)));
    assert_eq!(engine.poll_ended().as_deref(), Some("2000"));
    assert_eq!(engine.poll_ended(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes and goes: nobody believes for long what is not so, and is not told twice.
    #[test]
    fn who_is_told_knows(changes in prop::collection::vec((0u8..16, 1u64..200), 1..60)) {
        let keys = ["a", "b", "c", "d"];
        let mut desk = Desk::new();
        for (bits, wait) in changes {
            let on = (0..4).filter(|n| bits >> n & 1 == 1).map(|n| keys[n as usize]);
            desk.hold(&on.collect::<Vec<_>>());
            desk.pass(wait);
        }
        desk.hold(&["a"]);
        desk.pass(700);
        prop_assert_eq!(desk.firing(), ["a"]);
        for key in keys {
            let of = |word: &&str| word.ends_with(key) && !word.starts_with('=');
            let words: Vec<_> = desk.told.iter().flat_map(|t| t.split(' ')).filter(of).collect();
            for (n, word) in words.iter().enumerate() {
                prop_assert_eq!(word.starts_with('+'), n % 2 == 0, "{:?}", words);
            }
            prop_assert_eq!(words.len() % 2 == 1, key == "a", "{:?}", words);
        }
    }
}

/// Relays that each have an engine of their own, and have heard the controller at the same time.
#[test]
fn x21_five_relays_alert_after_75_minutes_and_not_before() {
    const LIMIT: u64 = 75 * 60;
    const STALE: u64 = 15;
    for relay in 1..=5 {
        let (mut desk, mut above) = (Desk::new(), Above::new(Some(HostId::ROOT)));
        let peer = Peer::Parent { place: 0, host: HostId::ROOT };
        above.handle(&Event::Linked { peer });
        let key = format!("controller-silent/site{relay}");
        let see = |desk: &mut Desk, above: &Above| {
            let silent = Condition { hold: secs(LIMIT), ..condition(&key) };
            let is_silent = above.missing() == Some(Missing::Controller);
            desk.set(is_silent.then_some(silent).into_iter().collect());
        };
        see(&mut desk, &above);
        // Three missed beats later it is noticed; the limit counts from then on.
        desk.pass(STALE);
        above.handle(&Event::RootStale { age: secs(STALE) });
        see(&mut desk, &above);
        desk.pass(LIMIT - STALE);
        assert!(desk.told.is_empty(), "at 75 minutes: {:?}", desk.told);
        desk.pass(60);
        assert_eq!(desk.told, [format!("+{key}")], "at 76 minutes");
        above.handle(&Event::RootFresh);
        see(&mut desk, &above);
        desk.pass(60);
        assert_eq!(desk.told, [format!("+{key}"), format!("-{key}")]);
    }
}
