//! The engine against what was asked of it: rate, delay, loss, and that no packet is unaccounted.

use proptest::prelude::*;

use super::super::{Blackout, Loss};
use super::*;

const MBIT: u64 = 1_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn engine(shape: Shape) -> Engine<u64> {
    Engine::new(shape, 7).expect("a sound shape")
}

/// Everything that arrives until `until`, each with its time, waking at the deadlines only.
fn drain<P>(engine: &mut Engine<P>, until: Duration) -> Vec<(Duration, P)> {
    let mut arrived = Vec::new();
    while let Some(at) = engine.next_deadline().filter(|at| *at <= until) {
        while let Some(packet) = engine.poll(at) {
            arrived.push((at, packet));
        }
        let next = engine.next_deadline();
        assert!(next.is_none_or(|next| next > at), "a deadline of {next:?} at {at:?} is no news");
    }
    arrived
}

fn assert_balanced(c: &Counters) {
    let parts = [c.delivered, c.lost, c.blacked_out, c.overflowed, c.held];
    assert_eq!(parts.iter().map(|part| part.packets).sum::<u64>(), c.pushed.packets, "{c:?}");
    assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), c.pushed.bytes, "{c:?}");
}

#[test]
fn one_packet_takes_its_time_on_the_wire_and_the_delay() {
    let mut link = engine(Shape { rate: Some(10 * MBIT), delay: ms(50), ..Shape::open() });
    assert!(link.push(ms(5), 1250, 1));
    // 10,000 bits at 10 Mbit/s are one millisecond.
    assert_eq!(link.next_deadline(), Some(ms(56)));
    assert_eq!(link.poll(ms(55)), None);
    assert_eq!(link.poll(ms(56)), Some(1));
    assert_eq!((link.poll(ms(56)), link.next_deadline()), (None, None));
}

#[test]
fn a_link_without_limits_hands_out_at_once() {
    let mut link = engine(Shape::open());
    assert!(link.push(ms(1), 60_000, 1) && link.push(ms(1), 1, 2));
    assert_eq!([link.poll(ms(1)), link.poll(ms(1)), link.poll(ms(1))], [Some(1), Some(2), None]);
}

#[test]
fn a_full_queue_drops_at_its_tail() {
    let mut link = engine(Shape { rate: Some(8000), queue: 300, ..Shape::open() });
    let taken: Vec<_> = (0..5).map(|no| link.push(ms(0), 100, no)).collect();
    assert_eq!(taken, [true, true, true, false, false]);
    // 100 bytes at 1000 bytes a second.
    assert!(!link.push(ms(99), 100, 5));
    assert!(link.push(ms(100), 100, 6));
    let arrived: Vec<_> = drain(&mut link, ms(10_000)).into_iter().collect();
    assert_eq!(arrived, [(ms(100), 0), (ms(200), 1), (ms(300), 2), (ms(400), 6)]);
    let counters = link.counters(ms(10_000));
    assert_eq!((counters.overflowed.packets, counters.queue_high), (3, 300));
    assert_balanced(&counters);
}

#[test]
fn a_packet_larger_than_the_queue_passes_if_nobody_waits() {
    let mut link = engine(Shape { rate: Some(8000), queue: 50, ..Shape::open() });
    assert!(link.push(ms(0), 100, 1));
    assert!(!link.push(ms(0), 10, 2), "the one on its way out fills the queue");
    assert_eq!(drain(&mut link, ms(1000)), [(ms(100), 1)]);
}

#[test]
fn an_idle_link_saves_up_no_rate() {
    let mut link = engine(Shape { rate: Some(8000), ..Shape::open() });
    for no in 0..3 {
        link.push(ms(5000), 100, no);
    }
    let times: Vec<_> = drain(&mut link, ms(9000)).into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [ms(5100), ms(5200), ms(5300)]);
}

#[test]
fn jitter_spreads_arrivals_and_keeps_their_order_unless_asked() {
    for reorder in [false, true] {
        let mut link = engine(Shape { delay: ms(10), jitter: ms(20), reorder, ..Shape::open() });
        let mut arrived = Vec::new();
        for no in 0..2000 {
            let now = Duration::from_micros(100 * no);
            arrived.extend(drain(&mut link, now));
            link.push(now, 100, no);
        }
        arrived.extend(drain(&mut link, ms(1000)));
        assert_eq!(arrived.len(), 2000);
        let delays: Vec<_> =
            arrived.iter().map(|(at, no)| *at - Duration::from_micros(100 * no)).collect();
        assert!(delays.iter().all(|delay| (ms(10)..ms(31)).contains(delay)));
        assert!(delays.iter().any(|delay| *delay > ms(28)));
        let ordered = arrived.is_sorted_by_key(|(_, no)| *no);
        assert_eq!(ordered, !reorder);
        if reorder {
            let mean = delays.iter().sum::<Duration>() / 2000;
            assert!(mean.abs_diff(ms(20)) < ms(1), "{mean:?}");
        }
    }
}

#[test]
fn a_blackout_swallows_what_leaves_in_it_and_nothing_else() {
    let black = Blackout { from: ms(100), length: ms(50), every: Some(ms(1000)) };
    let shape = Shape { delay: ms(500), blackouts: vec![black], ..Shape::open() };
    let mut link = engine(shape);
    for no in [0, 99, 100, 149, 150, 1100, 1150] {
        link.push(ms(no), 10, no);
    }
    let arrived: Vec<_> = drain(&mut link, ms(9000)).into_iter().map(|(_, no)| no).collect();
    assert_eq!(arrived, [0, 99, 150, 1150]);
    let counters = link.counters(ms(9000));
    assert_eq!((counters.blacked_out.packets, counters.lost.packets), (3, 0));
    assert_balanced(&counters);
}

#[test]
fn blackouts_that_are_added_do_not_heap_up() {
    let mut link = engine(Shape::open());
    for no in 0..100 {
        let from = ms(10 * no);
        link.darken(from, Blackout { from, length: ms(5), every: None });
        link.push(from + ms(4), 10, no);
        link.push(from + ms(5), 10, 1000 + no);
    }
    assert_eq!(link.shape().blackouts.len(), 1);
    let arrived = drain(&mut link, ms(2000));
    assert!(arrived.len() == 100 && arrived.iter().all(|(_, no)| *no >= 1000));
}

#[test]
fn a_switch_takes_effect_when_it_is_thrown() {
    // One packet leaves each 100 ms; nobody polls while the link is off.
    let mut link = engine(Shape { rate: Some(8000), ..Shape::open() });
    for no in 0..6 {
        link.push(ms(0), 100, no);
    }
    link.switch(ms(150), false);
    link.switch(ms(450), true);
    let arrived: Vec<_> = drain(&mut link, ms(9000)).into_iter().map(|(_, no)| no).collect();
    assert_eq!(arrived, [0, 4, 5]);
    assert_eq!(link.counters(ms(9000)).blacked_out.packets, 3);
}

#[test]
fn a_new_rate_holds_for_what_is_left_of_the_packet_in_front() {
    let slow = Shape { rate: Some(8000), ..Shape::open() };
    let mut link = engine(slow.clone());
    link.push(ms(0), 100, 1);
    link.push(ms(0), 100, 2);
    let fast = Shape { rate: Some(80_000), ..slow };
    link.reshape(ms(50), fast).expect("a sound shape");
    // Half of the first at ten times the rate, then all of the second.
    assert_eq!(drain(&mut link, ms(9000)), [(ms(55), 1), (ms(65), 2)]);
}

#[test]
fn without_a_rate_the_queue_empties_at_once() {
    let slow = Shape { rate: Some(8000), delay: ms(10), ..Shape::open() };
    let mut link = engine(slow.clone());
    for no in 0..3 {
        link.push(ms(0), 100, no);
    }
    link.reshape(ms(50), Shape { rate: None, ..slow }).expect("a sound shape");
    assert_eq!(link.queued(ms(50)), 0);
    assert_eq!(drain(&mut link, ms(9000)), [(ms(60), 0), (ms(60), 1), (ms(60), 2)]);
    let refused = link.reshape(ms(60), Shape { rate: Some(0), ..Shape::open() });
    assert_eq!(refused, Err(ShapeError::NoRate));
    assert_eq!(link.shape().rate, None);
}

#[test]
fn a_smaller_delay_lets_nothing_overtake() {
    let far = Shape { delay: ms(100), ..Shape::open() };
    let mut link = engine(far.clone());
    link.push(ms(0), 10, 1);
    link.reshape(ms(1), Shape { delay: ms(1), ..far }).expect("a sound shape");
    link.push(ms(1), 10, 2);
    assert_eq!(drain(&mut link, ms(9000)), [(ms(100), 1), (ms(100), 2)]);
}

#[test]
fn packets_of_nothing_are_bounded_too() {
    let mut link = engine(Shape { rate: Some(8), queue: 10, ..Shape::open() });
    let taken = (0..100).filter(|no| link.push(ms(0), 0, *no)).count();
    assert_eq!(taken, 10);
}

#[test]
fn what_is_on_the_way_is_bounded() {
    let mut link = engine(Shape { delay: ms(1000), ..Shape::open() });
    let half = LIMIT / 2;
    assert_eq!([1, 2, 3].map(|no| link.push(ms(0), half, no)), [true, true, false]);
    assert_balanced(&link.counters(ms(0)));
    assert_eq!(drain(&mut link, ms(2000)).len(), 2);
    // What waits is, too, even if the shape asks for no limit.
    let mut link = engine(Shape { rate: Some(8), ..Shape::open() });
    assert_eq!([1, 2, 3].map(|no| link.push(ms(0), half, no)), [true, true, false]);
}

#[test]
fn a_batch_is_many_datagrams() {
    let batch = [7; 2500];
    let sizes = |segment| segments(&batch, segment).map(<[u8]>::len).collect::<Vec<_>>();
    assert_eq!(sizes(Some(1200)), [1200, 1200, 100]);
    assert_eq!(sizes(None), [2500]);
    assert_eq!(segments(&[], None).count(), 0);
}

/// Anything a caller can do.
#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Poll,
    Switch(bool),
    Reshape(Shape),
}

fn shapes() -> impl Strategy<Value = Shape> {
    let loss = prop_oneof![
        Just(Loss::None),
        (0.0..1.0_f64).prop_map(Loss::Random),
        (0.0..0.5_f64, 1.0..9.0_f64).prop_map(|(share, mean)| Loss::Bursts { share, mean }),
    ];
    let black = (0..500_u64, 1..100_u64, proptest::option::of(100..300_u64));
    let black = black.prop_map(|(from, length, every)| Blackout {
        from: ms(from),
        length: ms(length),
        every: every.map(ms),
    });
    let times = (0..80_u64, 0..40_u64, any::<bool>());
    let rate = proptest::option::of(8_000..100 * MBIT);
    (rate, 0..50_000_usize, times, loss, proptest::collection::vec(black, 0..3)).prop_map(
        |(rate, queue, (delay, jitter, reorder), loss, blackouts)| {
            let (delay, jitter) = (ms(delay), ms(jitter));
            Shape { rate, queue, delay, jitter, reorder, loss, blackouts }
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        12 => (0..3000_usize).prop_map(Step::Push),
        4 => Just(Step::Poll),
        1 => any::<bool>().prop_map(Step::Switch),
        1 => shapes().prop_map(Step::Reshape),
    ];
    proptest::collection::vec((0..20_000_u64, step), 1..300)
}

/// Plays the steps. `eager`: polls at each deadline in between, as a shell does.
fn play(shape: &Shape, steps: &[(u64, Step)], eager: bool) -> (Vec<u64>, Counters) {
    let mut link = engine(shape.clone());
    let (mut now, mut arrived) = (Duration::ZERO, Vec::new());
    for (no, (pause, step)) in (0..).zip(steps) {
        now += Duration::from_micros(*pause);
        if eager {
            arrived.extend(drain(&mut link, now).into_iter().map(|(_, no)| no));
        }
        match step {
            Step::Push(size) => drop(link.push(now, *size, no)),
            Step::Poll => arrived.extend(std::iter::from_fn(|| link.poll(now))),
            Step::Switch(on) => link.switch(now, *on),
            Step::Reshape(shape) => link.reshape(now, shape.clone()).expect("a sound shape"),
        }
        assert_balanced(&link.counters(now));
    }
    arrived.extend(drain(&mut link, Duration::MAX).into_iter().map(|(_, no)| no));
    (arrived, link.counters(now))
}

proptest! {
    #[test]
    fn no_packet_is_unaccounted_and_looking_changes_nothing(shape in shapes(), steps in steps()) {
        let (arrived, counters) = play(&shape, &steps, false);
        prop_assert_eq!(counters.held, Count::default());
        prop_assert_eq!(counters.delivered.packets, arrived.len() as u64);
        let mut unique = arrived.clone();
        unique.sort_unstable();
        unique.dedup();
        prop_assert_eq!(unique.len(), arrived.len(), "a packet came twice");
        prop_assert_eq!(play(&shape, &steps, true), (arrived, counters));
    }

    #[test]
    fn a_saturated_link_gives_its_rate(
        rate in 100_000..1000 * MBIT,
        queue in 3000..1_000_000_usize,
        sizes in proptest::collection::vec(40..1500_usize, 50),
    ) {
        let mut link = engine(Shape { rate: Some(rate), queue, ..Shape::open() });
        let end = Duration::from_secs_f64(2e7 / rate as f64);
        // A sender who tops the queue up ten times as fast as it drains.
        let (mut now, mut got) = (Duration::ZERO, 0);
        for size in sizes.iter().cycle() {
            now += Duration::from_secs_f64(*size as f64 * 0.8 / rate as f64);
            if now > end {
                break;
            }
            link.push(now, *size, *size as u64);
            got += std::iter::from_fn(|| link.poll(now)).sum::<u64>();
        }
        let asked = rate as f64 * now.as_secs_f64().min(end.as_secs_f64()) / 8.0;
        // Two packets at the edges, and a nanosecond of rounding for each packet.
        let slack = 4500.0 + asked * 0.04;
        prop_assert!((got as f64 - asked).abs() < slack, "{got} of {asked} bytes");
    }

    #[test]
    fn loss_is_what_was_asked(share in 0.0..0.4_f64, mean in 1.0..8.0_f64, bursts: bool) {
        let loss = if bursts { Loss::Bursts { share, mean } } else { Loss::Random(share) };
        let mut link = engine(Shape { rate: Some(MBIT), loss, ..Shape::open() });
        let count = 50_000;
        for no in 0..count {
            link.push(ms(no), 100, no);
        }
        let counters = link.counters(Duration::MAX);
        prop_assert_eq!(counters.held.packets, counters.pushed.packets - counters.lost.packets);
        let got = counters.lost.packets as f64 / count as f64;
        let runs = share * count as f64 / if bursts { mean } else { 1.0 };
        let slack = 6.0 * share * (2.0 / runs.max(1.0)).sqrt() + 1e-3;
        prop_assert!((got - share).abs() < slack, "{got} for {loss:?}");
    }
}
