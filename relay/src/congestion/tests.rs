//! The controller against a simulated bottleneck. All figures are of virtual time, so a run of a
//! seed is always the same run.

use std::time::Duration;

use super::control::{Control, Start};
use super::model::{Brain, Flow, Model, PACKET, Path, Rival, Stats, ms};

const NEVER: u64 = u64::MAX;

fn ours(seed: u64, from: u64) -> Flow {
    let mut flow = Flow::ours(seed);
    flow.busy = vec![(from, NEVER)];
    flow
}

fn cubic(from: u64) -> Flow {
    Flow::new(Brain::Cubic(Rival::new()), vec![(from, NEVER)])
}

/// The stats of all flows between two seconds.
fn between(model: &mut Model, from: u64, to: u64) -> Vec<Stats> {
    model.run(ms(from * 1_000));
    for flow in &mut model.flows {
        flow.stats.rtt_max = 0;
    }
    let before: Vec<Stats> = model.flows.iter().map(|flow| flow.stats).collect();
    model.run(ms(to * 1_000));
    model.flows.iter().zip(before).map(|(flow, before)| flow.stats.since(before)).collect()
}

struct Aim {
    /// Delivered in the whole of the time, start-up included, as part of the rate.
    share: f64,
    /// Dropped at the queue, of what was sent.
    drops: f64,
    /// Mean round trip as a multiple of the idle one.
    rtt: f64,
    /// Packets sent for each delivered, beyond what the link itself loses.
    extra: f64,
}

/// One flow alone for so many seconds, with three seeds.
#[track_caller]
fn check(path: &Path, seconds: u64, aim: &Aim) {
    for seed in 1..=3 {
        let mut model = Model::new(path.clone(), vec![ours(seed, 0)], seed);
        let stats = between(&mut model, 0, seconds)[0];
        let share = stats.share(path.rates[0].1 as f64, ms(seconds * 1_000));
        assert!(share >= aim.share, "share {share:.3} with seed {seed}");
        assert!(stats.drops() <= aim.drops, "drops {:.4} with seed {seed}", stats.drops());
        let rtt = stats.rtt() / (path.delays[0].1 as f64 / 5e5);
        assert!(rtt <= aim.rtt, "{rtt:.2} times the idle round trip with seed {seed}");
        let sent = stats.sent as f64 / stats.delivered as f64;
        let extra = sent - 1.0 / (1.0 - path.loss);
        assert!(extra <= aim.extra, "extra {extra:.4} with seed {seed}");
    }
}

#[test]
fn a_clean_link_is_filled_and_its_queue_is_not() {
    let aim = Aim { share: 0.97, drops: 0.005, rtt: 1.25, extra: 0.01 };
    check(&Path::new(10.0, 100, 100, 0.0), 30, &aim);
    check(&Path::new(50.0, 100, 100, 0.1), 30, &Aim { share: 0.96, ..aim });
}

#[test]
fn random_loss_is_not_congestion() {
    let aim = Aim { share: 0.95, drops: 0.01, rtt: 1.25, extra: 0.03 };
    check(&Path::new(10.0, 100, 100, 1.0), 30, &aim);
    check(&Path::new(2.0, 300, 300, 3.0), 60, &Aim { share: 0.9, ..aim });
    check(&Path::new(10.0, 100, 100, 10.0), 30, &Aim { share: 0.82, ..aim });
    check(&Path::new(10.0, 100, 100, 20.0), 30, &Aim { share: 0.5, ..aim });
}

#[test]
fn losses_in_bursts_and_jitter_are_not_either() {
    let aim = Aim { share: 0.94, drops: 0.01, rtt: 1.3, extra: 0.03 };
    let bursts = Path { burst: 5.0, ..Path::new(10.0, 100, 100, 1.0) };
    check(&bursts, 30, &aim);
    let jitter = Path { jitter: ms(40), ..Path::new(10.0, 100, 100, 1.0) };
    check(&jitter, 30, &Aim { share: 0.88, rtt: 1.5, ..aim });
}

#[test]
fn a_long_link_is_filled() {
    let aim = Aim { share: 0.8, drops: 0.015, rtt: 1.25, extra: 0.04 };
    check(&Path::new(4.0, 600, 600, 1.0), 40, &aim);
}

#[test]
fn short_buffers_do_not_spill_and_deep_ones_are_not_filled() {
    let aim = Aim { share: 0.95, drops: 0.01, rtt: 1.25, extra: 0.03 };
    check(&Path::new(10.0, 100, 30, 1.0), 30, &aim);
    check(&Path::new(50.0, 100, 10, 0.0), 30, &Aim { drops: 0.025, ..aim });
    check(&Path::new(10.0, 100, 800, 0.0), 30, &Aim { drops: 0.0, ..aim });
}

#[test]
fn a_buffer_that_even_a_trough_overfills_is_not_flooded() {
    // Half a millisecond of queue; the controller believes that hosts hold two.
    let path = Path { queue: 25_000, ..Path::new(400.0, 4, 1, 0.0) };
    let mut model = Model::new(path, vec![ours(1, 0)], 1);
    let stats = between(&mut model, 1, 6)[0];
    assert!(stats.drops() < 0.05, "{:.3} dropped", stats.drops());
    assert!(stats.share(400e6, ms(5_000)) > 0.6, "{:.3}", stats.share(400e6, ms(5_000)));
}

#[test]
fn a_rate_that_changes_is_followed() {
    let rates = vec![(0, 10_000_000), (ms(20_000), 4_000_000), (ms(40_000), 20_000_000)];
    let path = Path { rates, queue: 500_000, ..Path::new(10.0, 100, 100, 1.0) };
    let mut model = Model::new(path, vec![ours(1, 0)], 1);
    let slow = between(&mut model, 24, 40)[0];
    assert!(slow.share(4e6, ms(16_000)) > 0.93, "{:.3}", slow.share(4e6, ms(16_000)));
    assert!(slow.rtt() < 140.0, "a queue of the old rate remains: {:.0} ms", slow.rtt());
    let fast = between(&mut model, 45, 60)[0];
    assert!(fast.share(20e6, ms(15_000)) > 0.93, "{:.3}", fast.share(20e6, ms(15_000)));
}

#[test]
fn a_path_that_becomes_longer_or_shorter_is_followed() {
    let delays = vec![(0, ms(50)), (ms(15_000), ms(90)), (ms(45_000), ms(30))];
    let path = Path { delays, queue: 500_000, ..Path::new(10.0, 100, 100, 0.0) };
    let mut model = Model::new(path, vec![ours(1, 0)], 1);
    let long = between(&mut model, 25, 45)[0];
    assert!(long.share(10e6, ms(20_000)) > 0.93, "{:.3}", long.share(10e6, ms(20_000)));
    assert!(long.rtt() < 180.0 * 1.4, "{:.0} ms", long.rtt());
    let short = between(&mut model, 50, 60)[0];
    assert!(short.share(10e6, ms(10_000)) > 0.93, "{:.3}", short.share(10e6, ms(10_000)));
    assert!(short.rtt() < 60.0 * 1.5, "{:.0} ms", short.rtt());
}

#[test]
fn a_blackout_is_got_over() {
    let path = Path { dark: (ms(10_000), ms(15_000)), ..Path::new(10.0, 100, 100, 1.0) };
    let mut model = Model::new(path, vec![ours(1, 0)], 1);
    // The probe time-out has doubled meanwhile, so that up to as long again may pass.
    let after = between(&mut model, 24, 34)[0];
    assert!(after.share(10e6, ms(10_000)) > 0.9, "{:.3}", after.share(10e6, ms(10_000)));
}

#[test]
fn two_of_our_kind_share() {
    for path in [Path::new(10.0, 100, 100, 0.0), Path::new(10.0, 100, 30, 1.0)] {
        for second in [0, 10_000] {
            let flows = vec![ours(1, 0), ours(2, ms(second))];
            let mut model = Model::new(path.clone(), flows, 7);
            let stats = between(&mut model, 20, 80);
            let shares: Vec<f64> = stats.iter().map(|s| s.share(10e6, ms(60_000))).collect();
            assert!(shares[0] + shares[1] > 0.95, "{shares:.2?}");
            assert!(shares.iter().all(|share| *share > 0.3), "{shares:.2?}");
            assert!(stats.iter().all(|s| s.rtt() < 130.0), "{:.0} ms", stats[0].rtt());
            assert!(stats.iter().all(|s| s.drops() < 0.01), "{:.4}", stats[0].drops());
        }
    }
}

#[test]
fn eight_of_our_kind_do_not_fill_the_queue() {
    let flows = (0..8).map(|seed| ours(seed, ms(seed * 300))).collect();
    let mut model = Model::new(Path::new(50.0, 100, 100, 0.0), flows, 7);
    let stats = between(&mut model, 20, 60);
    let shares: Vec<f64> = stats.iter().map(|s| s.share(50e6, ms(40_000))).collect();
    assert!(shares.iter().sum::<f64>() > 0.95, "{shares:.2?}");
    assert!(shares.iter().all(|share| *share > 0.02), "{shares:.2?}");
    assert!(stats.iter().all(|s| s.rtt() < 140.0), "{:.0} ms", stats[0].rtt());
}

#[test]
fn beside_a_cubic_flow_both_live() {
    // A third of the half that would be fair; from a queue of two round trips that the other has
    // filled before us, somewhat less.
    for (queue, least) in [(50, 0.166), (100, 0.166), (200, 0.12)] {
        for (first, second) in [(0, 0), (0, 10_000), (10_000, 0)] {
            let flows = vec![ours(1, ms(first)), cubic(ms(second))];
            let mut model = Model::new(Path::new(10.0, 100, queue, 0.0), flows, 7);
            let stats = between(&mut model, 20, 80);
            let shares: Vec<f64> = stats.iter().map(|s| s.share(10e6, ms(60_000))).collect();
            assert!(shares.iter().all(|share| *share > least), "{shares:.2?} with {queue} ms");
        }
    }
}

fn yielding(seed: u64) -> Flow {
    let flow = ours(seed, 0);
    let Brain::Ours(control) = &flow.brain else { panic!("it is ours") };
    control.set_yields(true);
    flow
}

#[test]
fn who_gives_way_fills_a_link_that_nobody_else_wants() {
    let aim = Aim { share: 0.93, drops: 0.005, rtt: 1.15, extra: 0.03 };
    for (path, least) in [
        (Path::new(10.0, 100, 100, 0.0), 0.93),
        (Path::new(10.0, 100, 100, 1.0), 0.9),
        (Path::new(2.0, 300, 300, 3.0), 0.85),
    ] {
        for seed in 1..=3 {
            let mut model = Model::new(path.clone(), vec![yielding(seed)], seed);
            let stats = between(&mut model, 0, 60)[0];
            let share = stats.share(path.rates[0].1 as f64, ms(60_000));
            assert!(share >= least, "share {share:.3} with seed {seed} on {path:?}");
            assert!(stats.drops() <= aim.drops, "drops {:.4}", stats.drops());
            let rtt = stats.rtt() / (path.delays[0].1 as f64 / 5e5);
            assert!(rtt <= aim.rtt, "{rtt:.2} times the idle round trip");
        }
    }
}

#[test]
fn who_gives_way_leaves_the_link_to_others_and_takes_it_back() {
    for queue in [50, 100, 200] {
        for seed in 1..=3 {
            let mut other = cubic(ms(10_000));
            other.busy = vec![(ms(10_000), ms(50_000))];
            let mut model =
                Model::new(Path::new(10.0, 100, queue, 0.0), vec![yielding(seed), other], seed);
            let both = between(&mut model, 15, 50);
            let alone = {
                let mut model = Model::new(Path::new(10.0, 100, queue, 0.0), vec![cubic(0)], seed);
                between(&mut model, 5, 40)[0].share(10e6, ms(35_000))
            };
            let share = both[1].share(10e6, ms(35_000));
            assert!(share > 0.93 * alone, "{share:.3} of {alone:.3} with {queue} ms");
            let after = between(&mut model, 60, 80)[0].share(10e6, ms(20_000));
            assert!(after > 0.9, "{after:.3} once it had gone, with {queue} ms");
        }
    }
}

#[test]
fn who_gives_way_does_so_to_our_own_kind_too() {
    let flows = vec![yielding(1), ours(2, ms(10_000))];
    let mut model = Model::new(Path::new(10.0, 100, 100, 1.0), flows, 7);
    let shares: Vec<f64> =
        between(&mut model, 20, 60).iter().map(|s| s.share(10e6, ms(40_000))).collect();
    assert!(shares[1] > 0.75, "{shares:.2?}");
    assert!(shares[0] + shares[1] > 0.9, "{shares:.2?}");
}

#[test]
fn who_gives_way_is_not_starved_by_a_path_that_became_longer() {
    let delays = vec![(0, ms(50)), (ms(15_000), ms(90))];
    let path = Path { delays, queue: 500_000, ..Path::new(10.0, 100, 100, 0.0) };
    let mut model = Model::new(path, vec![yielding(1)], 1);
    let long = between(&mut model, 40, 60)[0];
    assert!(long.share(10e6, ms(20_000)) > 0.85, "{:.3}", long.share(10e6, ms(20_000)));
}

#[test]
fn when_the_rival_has_gone_the_queue_goes_too() {
    let mut rival = cubic(ms(5_000));
    rival.busy = vec![(ms(5_000), ms(25_000))];
    let flows = vec![ours(1, 0), rival];
    let mut model = Model::new(Path::new(10.0, 100, 200, 0.0), flows, 7);
    let after = between(&mut model, 40, 60)[0];
    assert!(after.share(10e6, ms(20_000)) > 0.95, "{:.3}", after.share(10e6, ms(20_000)));
    assert!(after.rtt() < 130.0, "{:.0} ms", after.rtt());
}

#[test]
fn a_remembered_rate_saves_the_start() {
    let delivered = |start, mbit| {
        let control = Control::new(32 * PACKET, PACKET, start, 1);
        let flow = Flow::new(Brain::Ours(control), vec![(0, NEVER)]);
        let mut model = Model::new(Path::new(mbit, 600, 600, 0.0), vec![flow], 1);
        let stats = between(&mut model, 0, 4)[0];
        (stats.delivered, stats.drops())
    };
    let start = Start { rate: 8_000_000 / 8, rtt: Duration::from_millis(600) };
    let (cold, _) = delivered(None, 8.0);
    let (warm, _) = delivered(Some(start), 8.0);
    assert!(warm * 10 > cold * 13, "{warm} packets and not only {cold}");
    // The link has become much slower: the memory is wrong and must not hurt for long.
    let (_, drops) = delivered(Some(start), 4.0);
    assert!(drops < 0.25, "{drops:.3}");
    // A path of another delay is another path.
    let other = Start { rtt: Duration::from_millis(50), ..start };
    assert_eq!(delivered(Some(other), 8.0).0, cold);
}

#[test]
fn what_is_learnt_is_what_is_true() {
    let mut model = Model::new(Path::new(10.0, 100, 100, 1.0), vec![ours(1, 0)], 1);
    model.run(ms(20_000));
    let Brain::Ours(control) = &model.flows[0].brain else { panic!("it is ours") };
    let known = control.known().expect("start-up is over");
    assert!(known.rate.abs_diff(1_250_000) < 60_000, "{} bytes/s", known.rate);
    assert!(known.rtt >= Duration::from_millis(100), "{:?}", known.rtt);
    assert!(known.rtt < Duration::from_millis(108), "{:?}", known.rtt);
}

#[test]
fn a_sender_with_little_to_say_does_not_forget_the_rate() {
    let mut flow = ours(1, 0);
    // Ten seconds of bulk, ten of a packet now and then, bulk again.
    let now_and_then = (0..10).map(|i| (ms(10_000 + i * 1_000), ms(10_000 + i * 1_000) + 1));
    flow.busy = [(0, ms(10_000))].into_iter().chain(now_and_then).collect();
    flow.busy.push((ms(20_000), NEVER));
    let mut model = Model::new(Path::new(10.0, 100, 100, 1.0), vec![flow], 1);
    let again = between(&mut model, 20, 21)[0];
    // The first tenth of a second is the way there.
    assert!(again.share(10e6, ms(900)) > 0.85, "{:.3}", again.share(10e6, ms(900)));
}
