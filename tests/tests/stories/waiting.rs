//! A relay that is cut off, with little room for what waits there: what became of each order stays,
//! also when the relay dies, whatever else has to go is of the lowest class and counted.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Spec, until, wait_for};

use crate::metrics::scrape;
use crate::order;

const RELAY: &str = "r1";
const HOSTS: [&str; 4] = ["web1", "web2", "web3", "web4"];
/// Each prints 128 KiB at each host: six MiB in all, where there is room for four.
const ORDERS: usize = 12;
const ROOM: f64 = 4.0 * 1_048_576.0;
/// Outputs that fit, each with a few bytes of its own.
const FIT: usize = 31;
/// Different things that go wrong at each host: 192 of them find room, and one more each second.
const WRONG: usize = 210;
/// What goes wrong at each host before somebody looks.
const STEP: usize = 10;
/// How many facts there may be of a host.
const FACTS: usize = 64;
const LOOKS: &str = "facts_interval_ms = 100\nevent_flush_ms = 20\n";

/// A word without digits, which would make no difference.
fn word(mut no: usize) -> String {
    let mut word = String::from("flood-");
    while no > 0 {
        word.push(char::from(b'g' + (no % 20) as u8));
        no /= 20;
    }
    word
}

/// As many facts as there may be: what comes behind changes nothing but what is wrong.
fn full(fleet: &Fleet) -> Result<String> {
    let known = wait_for("a host to say what it is", LIMIT, || {
        let hosts = fleet.json(&["hosts", "--json", "-w", HOSTS[0]])?;
        Ok(hosts[0]["facts"].as_object().map(|facts| facts.len()).filter(|count| *count > 0))
    })?;
    Ok((known..FACTS).map(|no| format!("fact{no}=1\n")).collect())
}

/// How many things have gone wrong at a host, by its log.
fn noticed(fleet: &Fleet, host: &str) -> usize {
    fleet.log(host).matches("not all of it is a fact").count()
}

/// How often nodes have found the controller silent, by their logs. That and its end are told as
/// well, and find as little room.
fn silences(fleet: &Fleet) -> usize {
    let nodes = HOSTS.iter().chain([&RELAY]);
    nodes.map(|node| fleet.log(node).matches("nothing new from the controller").count()).sum()
}

/// Has each host notice one thing after the other, until each has noticed so many.
fn flood(fleet: &Fleet, (full, next): (&str, &mut usize), until: usize) -> Result<()> {
    wait_for(&format!("{until} things to go wrong at each host"), LIMIT, || {
        *next += 1;
        for host in HOSTS {
            let name = word(*next);
            let path = fleet.state(host).join("facts");
            let new = path.with_extension("new");
            fs::write(&new, format!("{full}{name}-{host}=1\n{name}-{host}=2\n"))?;
            fs::rename(new, path)?;
        }
        Ok(HOSTS.iter().all(|host| noticed(fleet, host) >= until).then_some(()))
    })
}

fn figure(fleet: &Fleet, name: &str) -> Result<f64> {
    scrape(fleet, RELAY, "/metrics")?.value(name, &[]).with_context(|| format!("no {name}"))
}

/// Whether something has found no room at a host, by its own count.
fn has_dropped(fleet: &Fleet) -> Result<bool> {
    for host in HOSTS {
        let page = scrape(fleet, host, "/metrics")?;
        if page.value("barid_events_dropped_total", &[]).context("drops")? > 0.0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs that wait for the file, and then print what no other prints.
fn begin(fleet: &Fleet, go: &Path) -> Result<Vec<String>> {
    let noise = "head -c 49152 /dev/urandom | base64 -w0";
    let ids = (0..ORDERS).map(|no| {
        let file = format!("{}/out-$BARID_NODE-{no}", fleet.path().display());
        let line = format!("{}; {noise} | tee {file}; {noise} >&2", until(go));
        order(fleet, &["run", "-w", "web[1-4]", "--shell", "--async", "--json", &line])
    });
    let ids = ids.collect::<Result<Vec<_>>>()?;
    wait_for("all of them to have begun", LIMIT, || {
        let page = scrape(fleet, RELAY, "/metrics")?;
        let orders = page.value("barid_orders", &[]);
        Ok(orders.is_some_and(|orders| orders >= ORDERS as f64).then_some(()))
    })?;
    Ok(ids)
}

/// The sum of the counts of these events.
fn told(fleet: &Fleet, subject: &str) -> Result<u64> {
    let output = fleet.barid(&["events", "--json", "--since", "1d", subject])?;
    ensure!(output.status.success(), "{output:?}");
    let lines = tests::show(&output.stdout);
    let counts = lines.lines().map(|line| {
        let event: Value = serde_json::from_str(line)?;
        event["count"].as_u64().context("a count")
    });
    counts.sum()
}

/// How many hosts' outputs of these orders the controller lacks. The others' are what they wrote.
fn lost(fleet: &Fleet, ids: &[String]) -> Result<usize> {
    let mut lost = 0;
    for (no, id) in ids.iter().enumerate() {
        let detail = fleet.wait_states(id, &[("ok", HOSTS.len() as u64)])?;
        for host in HOSTS {
            let answer = crate::answer(&detail, host)?;
            if answer["body_lost"] == true {
                lost += 1;
                continue;
            }
            let wrote = fs::read_to_string(fleet.path().join(format!("out-{host}-{no}")))?;
            assert_eq!(answer["stdout"].as_str(), Some(wrote.as_str()), "{host} of {id}");
        }
    }
    Ok(lost)
}

#[test]
fn a_relay_that_is_cut_off_keeps_what_became_of_orders_and_counts_what_it_drops() -> Result<()> {
    let mut fleet = Fleet::new()?;
    fleet.add(&Spec::new("relay", RELAY, "controller").at("lyon").with("spool_mib = 1\n"))?;
    for host in HOSTS {
        fleet.add(&Spec::new("host", host, RELAY).at("lyon").with(LOOKS))?;
    }
    fleet.wait_up(1 + HOSTS.len() as u64)?;
    let full = full(&fleet)?;
    let go = fleet.path().join("go");
    let ids = begin(&fleet, &go)?;
    fleet.kill("controller")?;

    let mut next = 0;
    flood(&fleet, (&full, &mut next), 20)?;
    fs::write(&go, "")?;
    let cut = (ORDERS * HOSTS.len() - FIT) as f64;
    let held = wait_for("the answers to have filled the room", LIMIT, || {
        let page = scrape(&fleet, RELAY, "/metrics")?;
        let cuts = page.value("barid_cuts_total", &[]).context("cuts")?;
        ensure!(cuts <= cut, "{cuts} outputs are cut");
        let held = page.value("barid_events_held", &[("of", "below")]).context("events")?;
        Ok((cuts == cut).then_some(held))
    })?;
    // What it has told of that is on its disk before the second frame from a host is.
    let more = |fleet: &Fleet| -> Result<bool> {
        let page = scrape(fleet, RELAY, "/metrics")?;
        let now = page.value("barid_events_held", &[("of", "below")]).context("events")?;
        Ok(now >= held + 40.0)
    };
    let mut rounds = 20;
    while !more(&fleet)? {
        ensure!(rounds < 2 * WRONG, "the relay takes no events any more");
        rounds += STEP;
        flood(&fleet, (&full, &mut next), rounds)?;
    }
    fleet.kill(RELAY)?;
    fleet.restart(RELAY)?;
    while rounds < WRONG || !has_dropped(&fleet)? {
        ensure!(rounds < 4 * WRONG, "no host drops anything");
        rounds += STEP;
        flood(&fleet, (&full, &mut next), rounds)?;
    }
    let waiting = figure(&fleet, "barid_waiting_bytes")?;
    let events = HOSTS.iter().map(|host| noticed(&fleet, host)).sum::<usize>();
    // And a few of its own.
    let events = 1_040.0 * (events + 100) as f64;
    ensure!(waiting > ROOM / 2.0 && waiting < ROOM + events, "{waiting} bytes wait");

    fleet.restart("controller")?;
    fleet.wait_up(1 + HOSTS.len() as u64)?;
    let lost = lost(&fleet, &ids)?;
    assert_eq!(lost as f64, cut, "each output that the relay cut, and no other, is missing");
    wait_for("what was cut to be told", LIMIT, || {
        let found = told(&fleet, "run.cut")?;
        ensure!(found <= lost as u64, "{found} are told of {lost}");
        Ok((found == lost as u64).then_some(()))
    })?;
    let noticed: usize = HOSTS.iter().map(|host| noticed(&fleet, host)).sum();
    let happened = noticed + 2 * silences(&fleet);
    let mut seen = (0, 0);
    let all = wait_for("all that went wrong to be told or counted", LIMIT, || {
        let known = ["host.facts", "beat.stale", "beat.fresh"].map(|what| told(&fleet, what));
        let known = known.into_iter().sum::<Result<u64>>()?;
        seen = (known, told(&fleet, "host.events-dropped")?);
        let found = (seen.0 + seen.1) as usize;
        ensure!(found <= happened, "more than has happened");
        Ok((seen.1 > 0 && found == happened).then_some(()))
    });
    let (facts, dropped) = seen;
    all.with_context(|| {
        format!("{facts} told and {dropped} dropped of {happened}, {noticed} of them facts")
    })
}
