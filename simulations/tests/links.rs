//! QUIC itself over emulated links, in virtual time: what the relay's congestion controller and
//! transport settings make of links that lose, queue and are shared, and how long an order takes
//! beside a push. No figure here depends on how fast the machine is.

use std::time::Duration;

use relay::LinkKind;
use simulations::wan::flows::{Controller, Flow, Outcome, Play};
use simulations::wan::rest::rest;
use simulations::wan::{Loss, Profile};

const SECOND: Duration = Duration::from_secs(1);
/// What a packet costs beside its content: QUIC, UDP and IP.
const OVERHEAD: f64 = 1.03;

fn play(profile: &Profile, flows: &[Flow], seconds: (u32, u32), seed: u64) -> Outcome {
    let (warm, lasts) = (SECOND * seconds.0, SECOND * seconds.1);
    let play = Play { profile: profile.clone(), flows: flows.to_vec(), lasts, warm, seed };
    play.run().expect("the flows run")
}

fn named(name: &str) -> Profile {
    Profile::named(name).expect("it is known")
}

fn rate(profile: &Profile) -> f64 {
    profile.down.rate.expect("it has a rate") as f64
}

fn share(outcome: &Outcome, profile: &Profile, flow: usize) -> f64 {
    outcome.goodput(flow) / rate(profile)
}

/// One push alone, from its start: the part of the rate that comes out as content, with few drops,
/// a short queue, and little sent twice.
#[track_caller]
fn check_alone(profile: &Profile, seconds: u32, least: f64) {
    for seed in [1, 2] {
        let outcome = play(profile, &[Flow::bulk(Controller::Ours)], (0, seconds), seed);
        let share = share(&outcome, profile, 0);
        assert!(share >= least, "{share:.3} of the rate");
        assert!(outcome.drops() < 0.01, "{:.4} dropped at the queue", outcome.drops());
        let rtt = outcome.flows[0].rtt_mean.as_secs_f64() / profile.round_trip().as_secs_f64();
        assert!(rtt < 1.5, "{rtt:.2} times the idle round trip");
        let loss = profile.down.loss.share();
        let most = OVERHEAD / (1.0 - loss) + 0.03;
        assert!(
            outcome.cost(0) < most,
            "{:.3} bytes for each, more than {most:.3}",
            outcome.cost(0)
        );
    }
}

#[test]
fn weak_links_are_used() {
    check_alone(&named("clean10"), 30, 0.93);
    check_alone(&named("weak"), 30, 0.92);
    check_alone(&named("veryweak"), 60, 0.85);
    check_alone(&named("shallow"), 30, 0.91);
    check_alone(&named("mid50"), 30, 0.92);
    check_alone(&named("geo"), 60, 0.78);
    let mut tenth = named("weak");
    tenth.down.loss = Loss::Random(0.1);
    tenth.up.loss = Loss::Random(0.1);
    check_alone(&tenth, 60, 0.8);
}

#[test]
fn the_usual_controllers_do_not_use_them() {
    // Or else the links are not what they should be.
    let outcome = play(&named("weak"), &[Flow::bulk(Controller::Cubic)], (0, 30), 1);
    assert!(share(&outcome, &named("weak"), 0) < 0.3);
    let outcome = play(&named("weak"), &[Flow::bulk(Controller::Bbr)], (0, 30), 1);
    assert!(outcome.drops() > 0.1, "{:.4} dropped", outcome.drops());
}

#[test]
fn a_deep_buffer_stays_empty() {
    let mut deep = named("clean10");
    deep.down.queue *= 8;
    check_alone(&deep, 30, 0.93);
}

#[test]
fn flows_share_a_link() {
    let clean = named("clean10");
    let late = |controller| Flow { from: SECOND * 10, ..Flow::bulk(controller) };
    for (flows, least) in [
        ([Flow::bulk(Controller::Ours), late(Controller::Ours)], 0.3),
        ([Flow::bulk(Controller::Ours), Flow::bulk(Controller::Cubic)], 0.16),
        ([Flow::bulk(Controller::Ours), late(Controller::Cubic)], 0.16),
        ([Flow::bulk(Controller::Cubic), late(Controller::Ours)], 0.16),
    ] {
        let outcome = play(&clean, &flows, (20, 90), 3);
        let shares = [share(&outcome, &clean, 0), share(&outcome, &clean, 1)];
        assert!(shares.iter().all(|share| *share > least), "{shares:.2?} of {flows:?}");
        assert!(shares.iter().sum::<f64>() > 0.88, "{shares:.2?} of {flows:?}");
    }
}

/// The value that 99 of 100 do not exceed.
fn high(mut times: Vec<Duration>) -> Duration {
    assert!(times.len() >= 150, "only {} messages", times.len());
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn an_order_does_not_wait_for_a_push() {
    for name in ["weak", "veryweak"] {
        let (profile, orders) = (named(name), Some(Duration::from_millis(700)));
        let most = profile.round_trip() * 2 + Duration::from_millis(100);
        for (bulk, object) in [(0, 1), (1, 32 << 20), (8, 1 << 20), (8, 32 << 20), (30, 50_000)] {
            let flow = Flow { bulk, object, orders, ..Flow::bulk(Controller::Ours) };
            let outcome = play(&profile, &[flow], (10, 150), 1);
            let told = &outcome.flows[0];
            let (down, up) = (high(told.down.clone()), high(told.up.clone()));
            assert!(down <= most, "{name}, {bulk} of {object}: down {down:?}");
            assert!(up <= most, "{name}, {bulk} of {object}: up {up:?}");
        }
    }
}

#[test]
fn an_idle_link_is_nearly_silent() {
    let kinds = [(LinkKind::Lan, "lan"), (LinkKind::Wan, "weak"), (LinkKind::Weak, "veryweak")];
    for (kind, profile) in kinds {
        // An acknowledgement for each beat would make it two packets. Beats that go together
        // need three for two, and now and then one more.
        let beats = 60.0 / kind.beat(SECOND * 5).as_secs_f64();
        for rest in rest(kind, &named(profile), SECOND * 3_600, 1).expect("the link lives") {
            println!("{kind:?}: {rest:?}");
            assert!((20.0..=200.0).contains(&rest.bits), "{kind:?}: {rest:?}");
            assert!(rest.packets < 1.7 * beats, "{kind:?}: {rest:?}");
        }
    }
}

#[test]
fn a_limit_is_kept_and_used() {
    let weak = named("weak");
    let flow = Flow { rate_limit: 2_000_000, ..Flow::bulk(Controller::Ours) };
    let outcome = play(&weak, &[flow], (5, 35), 1);
    let goodput = outcome.goodput(0);
    assert!((1_900_000.0..2_050_000.0).contains(&goodput), "{goodput:.0} bit/s");
}

#[test]
fn a_seed_is_a_run() {
    let one = play(&named("weak"), &[Flow::bulk(Controller::Ours)], (0, 5), 9);
    let two = play(&named("weak"), &[Flow::bulk(Controller::Ours)], (0, 5), 9);
    assert_eq!(one.flows[0].delivered, two.flows[0].delivered);
    assert_eq!(one.down, two.down);
}
