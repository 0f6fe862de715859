//! Congestion controllers on emulated links, in virtual time: what of the rate comes out, what it
//! costs, what it does to the queue and to whoever shares it; and how long an order takes beside a
//! push. The link is the emulator's, QUIC is quinn, and no figure depends on the machine, but for
//! the last table, which is loopback.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use relay::LinkKind;
use simulations::wan::flows::{Controller, Flow, Outcome, Play, loopback};
use simulations::wan::rest::rest;
use simulations::wan::{Loss, Profile};

use crate::table;

/// Virtual time of each play.
const LASTS: Duration = Duration::from_secs(60);
/// Plays of each row; the one with the median goodput is shown.
const SEEDS: u64 = 3;
/// Bytes over loopback.
const LOOPBACK: u64 = 256 << 20;

/// Prints all tables.
pub(crate) fn measure() -> Result<()> {
    let begun = Instant::now();
    alone()?;
    shared()?;
    orders()?;
    idle()?;
    quick()?;
    println!("\n{} of real time.", table::time(begun.elapsed()));
    Ok(())
}

fn profiles() -> Result<Vec<(&'static str, Profile)>> {
    let mut all = Vec::new();
    for name in ["clean10", "weak", "veryweak", "mid50", "long50", "geo", "shallow"] {
        all.push((name, Profile::named(name)?));
    }
    let mut tenth = Profile::named("weak")?;
    tenth.down.loss = Loss::Random(0.1);
    tenth.up.loss = Loss::Random(0.1);
    all.push(("weak, 10 % lost", tenth));
    let mut bursts = Profile::named("weak")?;
    bursts.down.loss = Loss::Bursts { share: 0.01, mean: 5.0 };
    bursts.up.loss = bursts.down.loss;
    all.push(("weak, in bursts of 5", bursts));
    let mut deep = Profile::named("clean10")?;
    deep.down.queue *= 8;
    all.push(("clean10, queue of 8 round trips", deep));
    Ok(all)
}

fn play(profile: &Profile, flows: &[Flow], warm: u64, seed: u64) -> Result<Outcome> {
    let warm = Duration::from_secs(warm);
    Play { profile: profile.clone(), flows: flows.to_vec(), lasts: LASTS + warm, warm, seed }.run()
}

/// The play of the middle among some seeds.
fn median(profile: &Profile, flows: &[Flow], warm: u64) -> Result<Outcome> {
    let mut outcomes = Vec::new();
    for seed in 1..=SEEDS {
        outcomes.push(play(profile, flows, warm, seed)?);
    }
    outcomes.sort_by(|a, b| a.goodput(0).total_cmp(&b.goodput(0)));
    Ok(outcomes.swap_remove(outcomes.len() / 2))
}

fn rate(profile: &Profile) -> f64 {
    profile.down.rate.unwrap_or(u64::MAX) as f64
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn alone() -> Result<()> {
    let mut rows = Vec::new();
    for (name, profile) in profiles()? {
        for controller in Controller::ALL {
            let outcome = median(&profile, &[Flow::bulk(controller)], 0)?;
            let told = &outcome.flows[0];
            let idle = profile.round_trip().as_secs_f64();
            rows.push(vec![
                name.to_owned(),
                controller.name().to_owned(),
                format!("{:.2}", outcome.goodput(0) / 1e6),
                percent(outcome.goodput(0) / rate(&profile)),
                percent(1.0 - profile.down.loss.share()),
                format!("{:.3}", outcome.cost(0)),
                percent(outcome.drops()),
                format!("{:.2}", told.rtt_mean.as_secs_f64() / idle),
                format!("{:.2}", told.rtt_max.as_secs_f64() / idle),
            ]);
        }
    }
    table::heading("Controllers alone on a link, 60 virtual seconds from the handshake on");
    table::print(
        &[
            "link",
            "controller",
            "Mbit/s of content",
            "of the rate",
            "bound, without headers",
            "bytes sent for each",
            "dropped at the queue",
            "RTT mean / idle",
            "max / idle",
        ],
        &rows,
    );
    Ok(())
}

fn shared() -> Result<()> {
    let profile = Profile::named("clean10")?;
    let (first, late) =
        (Flow::bulk, |controller| Flow { from: Duration::from_secs(10), ..Flow::bulk(controller) });
    let mut rows = Vec::new();
    for queue in [1, 2] {
        let mut profile = profile.clone();
        profile.down.queue *= queue;
        for (what, flows) in [
            ("ours, ours 10 s later", vec![first(Controller::Ours), late(Controller::Ours)]),
            ("ours, cubic at once", vec![first(Controller::Ours), first(Controller::Cubic)]),
            ("ours, cubic 10 s later", vec![first(Controller::Ours), late(Controller::Cubic)]),
            ("cubic, ours 10 s later", vec![first(Controller::Cubic), late(Controller::Ours)]),
            ("cubic, cubic 10 s later", vec![first(Controller::Cubic), late(Controller::Cubic)]),
        ] {
            let outcome = median(&profile, &flows, 20)?;
            let share = |flow| percent(outcome.goodput(flow) / rate(&profile));
            let rtt = outcome.flows[0].rtt_mean.as_secs_f64() / profile.round_trip().as_secs_f64();
            rows.push(vec![
                what.to_owned(),
                format!("{queue} round trip"),
                share(0),
                share(1),
                percent(outcome.drops()),
                format!("{rtt:.2}"),
            ]);
        }
    }
    table::heading("Two flows on clean10, from second 20 to 80");
    table::print(
        &["flows", "queue", "first", "second", "dropped at the queue", "RTT mean / idle"],
        &rows,
    );
    Ok(())
}

fn orders() -> Result<()> {
    let mut rows = Vec::new();
    for name in ["weak", "veryweak"] {
        let profile = Profile::named(name)?;
        let bound = profile.round_trip() / 2;
        for (what, bulk, object) in [
            ("nothing else", 0, 1),
            ("one pull of 32 MiB", 1, 32 << 20),
            ("8 pulls of 1 MiB", 8, 1 << 20),
            ("30 pulls of 50 kB", 30, 50_000),
        ] {
            let orders = Some(Duration::from_millis(500));
            let flow = Flow { bulk, object, orders, ..Flow::bulk(Controller::Ours) };
            let mut outcome = play(&profile, &[flow], 10, 1)?;
            let told = std::mem::take(&mut outcome.flows[0]);
            for (way, times) in [("down", told.down), ("up", told.up)] {
                ensure!(!times.is_empty(), "no order has come through");
                let [count, middle, high, _, most] = table::Spread::of(times).cells();
                let allowed = profile.round_trip() * 2 + Duration::from_millis(100);
                let (bound, allowed) = (table::time(bound), table::time(allowed));
                let (name, what, way) = (name.to_owned(), what.to_owned(), way.to_owned());
                rows.push(vec![name, what, way, count, bound, middle, high, most, allowed]);
            }
        }
    }
    table::heading("An order of 300 bytes beside pulls, 60 virtual seconds");
    table::print(
        &["link", "beside", "way", "orders", "bound", "p50", "p99", "max", "2 RTT + 100 ms"],
        &rows,
    );
    Ok(())
}

fn idle() -> Result<()> {
    let mut rows = Vec::new();
    for (name, kind, profile) in [
        ("lan", LinkKind::Lan, "lan"),
        ("wan", LinkKind::Wan, "weak"),
        ("weak", LinkKind::Weak, "veryweak"),
    ] {
        let [down, up] = rest(kind, &Profile::named(profile)?, Duration::from_secs(3_600), 1)?;
        let every = kind.beat(Duration::from_secs(5)).as_secs();
        rows.push(vec![
            name.to_owned(),
            profile.to_owned(),
            format!("{every} s"),
            format!("{:.0}", down.bits),
            format!("{:.0}", up.bits),
            format!("{:.1}", down.packets),
            format!("{:.1}", up.packets),
        ]);
    }
    table::heading("An idle link: beats both ways, with headers of UDP and IP, over an hour");
    let head = ["kind", "link", "beats", "bit/s down", "bit/s up", "packets a minute down", "up"];
    table::print(&head, &rows);
    Ok(())
}

fn quick() -> Result<()> {
    let mut rows = Vec::new();
    let mut times = Vec::new();
    for controller in [Controller::Cubic, Controller::Ours] {
        let mut spread = Vec::new();
        for _ in 0..5 {
            spread.push(loopback(controller, LOOPBACK)?);
        }
        let time = table::Spread::of(spread).rank(0.5);
        times.push(time);
        rows.push(vec![
            controller.name().to_owned(),
            format!("{:.0}", LOOPBACK as f64 / 1e6 / time.as_secs_f64()),
            table::ratio(time.as_secs_f64(), times[0].as_secs_f64()),
        ]);
    }
    table::heading("Loopback, one process, real time: 256 MiB, median of 5");
    table::print(&["controller", "MB/s", "time / cubic"], &rows);
    Ok(())
}
