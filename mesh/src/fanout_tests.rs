use super::*;

const WHAT: Digest = Digest([7; 32]);
const MIB: u64 = 1 << 20;

fn limits(width: usize) -> FanoutLimits {
    // One object of 8 MiB takes the port a second.
    FanoutLimits { width, port: 8 * MIB, worth: Duration::from_secs(2), least: MIB }
}

fn at(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

fn asked(child: u32) -> Ask {
    Ask { child: HostId(child), content: WHAT, bytes: 8 * MIB, willing: true }
}

/// A node with so many children that can help each other.
fn with(children: u32, width: usize) -> Fanout {
    let mut fanout = Fanout::new(limits(width));
    (1..=children).for_each(|child| fanout.meet(HostId(child)));
    fanout
}

fn sent_to(way: Way) -> Option<u32> {
    match way {
        Way::Here { .. } => None,
        Way::Sibling { host, .. } => Some(host.0),
    }
}

/// From whom each of these gets it; none: from the node.
fn ask_all(fanout: &mut Fanout, children: std::ops::RangeInclusive<u32>) -> Vec<Option<u32>> {
    children.map(|child| sent_to(fanout.ask(at(0), &asked(child)))).collect()
}

#[test]
fn beyond_the_fanout_children_go_to_siblings_level_by_level() {
    let mut fanout = with(16, 2);
    let ways = ask_all(&mut fanout, 1..=8);
    let (first, second) = (Some(1), Some(2));
    assert_eq!(ways, [None, None, first, second, first, second, Some(3), Some(4)]);
    // The first two have it: the next ones come from them, and not from deep below.
    fanout.got(HostId(3), WHAT);
    fanout.got(HostId(5), WHAT);
    assert_eq!(ask_all(&mut fanout, 9..=9), [first]);
    fanout.got(HostId(1), WHAT);
    fanout.got(HostId(2), WHAT);
    assert_eq!(ask_all(&mut fanout, 10..=11), [None, None], "there is room here again");
}

#[test]
fn small_objects_few_children_and_a_fast_port_need_no_sibling() {
    let mut fanout = with(16, 2);
    let small = |child| Ask { bytes: MIB - 1, ..asked(child) };
    assert!((1..=16).all(|child| sent_to(fanout.ask(at(0), &small(child))).is_none()));
    assert!(fanout.is_empty(), "nothing of it is kept in mind");
    let light = |child| Ask { bytes: 2 * MIB, ..asked(child) };
    let ways: Vec<_> = (1..=9).map(|child| sent_to(fanout.ask(at(0), &light(child)))).collect();
    assert_eq!(ways[..7], [None; 7], "the port takes less than two seconds for them");
    assert!(ways[7..].iter().all(Option::is_some), "{ways:?}");
    let mut off = with(16, 0);
    assert!(ask_all(&mut off, 1..=16).iter().all(Option::is_none));
}

#[test]
fn who_is_promoted_is_told_so_before_anybody_is_sent() {
    let promoted = |children| with(children, 2).ask(at(0), &asked(1));
    assert_eq!(promoted(2), Way::Here { promoted: false }, "nobody could be sent to it");
    assert_eq!(promoted(3), Way::Here { promoted: true });
    let mut fanout = with(3, 2);
    let alone = Ask { willing: false, ..asked(1) };
    assert_eq!(fanout.ask(at(0), &alone), Way::Here { promoted: false });
    // It asks, and nobody is sent to it.
    ask_all(&mut fanout, 2..=2);
    assert_eq!(ask_all(&mut fanout, 3..=3), [Some(2)]);
    // A stranger gets it here.
    assert_eq!(fanout.ask(at(0), &asked(9)), Way::Here { promoted: false });
}

#[test]
fn what_the_port_has_shown_counts_if_it_is_less_than_it_is_taken_for() {
    let mut fanout = with(16, 2);
    let light = |child| Ask { bytes: 2 * MIB, ..asked(child) };
    // A mebibyte a second, for a second.
    for tenth in 0..=20 {
        fanout.sent(Time(Duration::from_millis(50 * tenth)), MIB as usize / 20);
    }
    let ways: Vec<_> = (1..=3).map(|child| sent_to(fanout.ask(at(2), &light(child)))).collect();
    assert_eq!(ways, [None, None, Some(1)]);
    // Pauses are no rate, and a port is never taken for more than it is said to be.
    let mut port = Port::default();
    (0..100).for_each(|second| port.sent(at(second), 1));
    assert_eq!(port.rate(1_000), 1_000);
    (0..=100).for_each(|n| port.sent(Time(Duration::from_millis(10 * n)), 1 << 30));
    assert_eq!(port.rate(1_000), 1_000);
}

#[test]
fn who_was_failed_gets_it_here_and_not_from_the_same_again() {
    let mut fanout = with(16, 2);
    assert_eq!(ask_all(&mut fanout, 1..=3), [None, None, Some(1)]);
    fanout.lost(at(1), HostId(3), WHAT, Lost::Broken, true);
    assert_eq!(fanout.going(WHAT, HostId(9)), 3, "the third one gets it here");
    fanout.left(HostId(3), WHAT);
    assert_eq!(sent_to(fanout.ask(at(2), &asked(3))), Some(2));
    // Twice failed: it is left out, and so is who has failed two.
    fanout.lost(at(3), HostId(3), WHAT, Lost::Altered, true);
    fanout.left(HostId(3), WHAT);
    assert_eq!(sent_to(fanout.ask(at(3), &asked(3))), None);
    assert_eq!(sent_to(fanout.ask(at(3), &asked(4))), Some(1));
    fanout.lost(at(4), HostId(4), WHAT, Lost::Unreached, true);
    fanout.left(HostId(4), WHAT);
    for child in 5..=12 {
        let way = sent_to(fanout.ask(at(5), &asked(child)));
        assert!(way.is_some() && way != Some(1) && way != Some(3), "{child}: {way:?}");
    }
    // After a while nothing of that counts any more.
    let later = at(4) + MEMORY;
    fanout.left(HostId(4), WHAT);
    assert_eq!(sent_to(fanout.ask(later, &asked(4))), Some(1));
    assert_eq!(fanout.len().1, 0);
}

#[test]
fn nobody_is_blamed_for_what_is_not_his_fault() {
    let mut fanout = with(16, 2);
    assert_eq!(ask_all(&mut fanout, 1..=4), [None, None, Some(1), Some(2)]);
    fanout.lost(at(1), HostId(3), WHAT, Lost::Slow, false);
    fanout.lost(at(1), HostId(4), WHAT, Lost::Absent, true);
    assert_eq!(fanout.len(), (1, 0));
    // But they are of no use for this object: those who got it here then are.
    let ways = ask_all(&mut fanout, 5..=6);
    assert_eq!(ways, [Some(3), Some(4)]);
}

#[test]
fn nobody_is_sent_to_somebody_below_himself() {
    let mut fanout = with(16, 1);
    // A chain: each of them serves the next one.
    assert_eq!(ask_all(&mut fanout, 1..=4), [None, Some(1), Some(2), Some(3)]);
    // The first asks again, while another gets it here.
    fanout.left(HostId(1), WHAT);
    assert_eq!(sent_to(fanout.ask(at(0), &Ask { willing: false, ..asked(5) })), None);
    assert_eq!(sent_to(fanout.ask(at(1), &asked(1))), None, "all others get it by way of it");
}

#[test]
fn who_goes_leaves_nothing_behind_and_what_is_kept_is_bounded() {
    let mut fanout = with(16, 2);
    ask_all(&mut fanout, 1..=8);
    (1..=8).for_each(|child| fanout.part(HostId(child)));
    assert!(fanout.objects[&WHAT].children.is_empty());
    fanout.ask(at(0) + KEPT, &Ask { content: Digest([8; 32]), ..asked(9) });
    assert!(!fanout.objects.contains_key(&WHAT));
    for n in 0..2_000_u32 {
        let mut content = [0; 32];
        content[..4].copy_from_slice(&n.to_le_bytes());
        fanout.ask(at(700), &Ask { content: Digest(content), ..asked(10) });
    }
    assert_eq!(fanout.len().0, OBJECTS);
    for pair in 0..5_000_u32 {
        fanout.ask(at(700), &asked(pair));
        let stand = fanout.stand(HostId(pair), WHAT).expect("it has asked");
        stand.from = Some(HostId(99_999));
        fanout.lost(at(700), HostId(pair), WHAT, Lost::Broken, true);
    }
    assert_eq!(fanout.len().1, PAIRS);
}

/// However children ask, finish, fail and go, everybody's way leads to the node, by siblings that
/// have no more than they may.
#[test]
fn every_way_leads_to_the_node() {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    let mut rng = SmallRng::seed_from_u64(1);
    for round in 0..200 {
        let width = 1 + round % 4;
        let mut fanout = with(30, width);
        for step in 0..300_u64 {
            let (child, now) = (HostId(rng.random_range(1..=30)), at(step / 10));
            match rng.random_range(0..8) {
                0..=3 => drop(fanout.ask(now, &asked(child.0))),
                4 => fanout.got(child, WHAT),
                5 => fanout.lost(now, child, WHAT, Lost::Broken, true),
                6 => fanout.left(child, WHAT),
                _ => {
                    fanout.part(child);
                    fanout.meet(child);
                }
            }
            let Some(object) = fanout.objects.get(&WHAT) else { continue };
            let mut loads: BTreeMap<HostId, usize> = BTreeMap::new();
            for (host, stand) in &object.children {
                assert!(object.depth(*host, HostId(0)).is_some(), "{host} is in a circle");
                stand.from.into_iter().for_each(|from| *loads.entry(from).or_default() += 1);
            }
            assert!(loads.values().all(|load| *load <= width), "{loads:?} of {width}");
        }
    }
}
