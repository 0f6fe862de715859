//! Ten thousand hosts that answer at once, and whether tiers cost anything.
//!
//! The hosts are a crowd (`simulations::crowd`) in this process; the relays and the controller are
//! what ships. All of them share this machine, so each row says whose processor time it was.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::table::{self, Spread};
use crate::world::{Cost, EQUAL, NEAR, NEAR_BYTES, Shape, World};

/// Hosts at one relay.
const AT_ONE: usize = 1_000;
/// Hosts below different numbers of tiers.
const TIERED: usize = 1_000;
/// Runs before it counts.
const WARM: usize = 2;
/// No row takes longer; the table tells how many runs it got.
const LIMIT: Duration = Duration::from_secs(90);

/// Measures `hosts` behind one tier of relays, and a thousand behind none, one and two.
pub(crate) fn measure(barid: &Path, hosts: usize, runs: usize) -> Result<()> {
    large(barid, hosts, runs)?;
    tiers(barid, TIERED.min(hosts), runs)
}

fn large(barid: &Path, hosts: usize, runs: usize) -> Result<()> {
    let relays = hosts.div_ceil(AT_ONE).max(1);
    let begun = Instant::now();
    let mut world = World::start(barid, Shape::Two(relays), hosts)?;
    let linked = begun.elapsed();
    eprintln!("{hosts} virtual hosts are linked after {:.1} s", linked.as_secs_f64());
    let mut rows = Vec::new();
    for (what, text, bytes) in
        [(EQUAL, "equal answers", 20), (NEAR, "equal but for name and time", NEAR_BYTES)]
    {
        let costs = repeat(&mut world, what, runs)?;
        let [controller, relay] = world.memory()?;
        let memory = |of: Option<crate::proc::Memory>| {
            of.map_or_else(String::new, |memory| table::memory(memory.resident))
        };
        let mut row = vec![text.to_owned()];
        row.extend(cells(&costs));
        row.push(table::bytes((bytes * hosts) as u64));
        row.extend([memory(controller), memory(relay)]);
        rows.push(row);
    }
    let title = format!(
        "{hosts} virtual hosts behind {relays} relays, linked {:.1} s after nothing",
        linked.as_secs_f64()
    );
    table::heading(&title);
    let head = [
        "answers",
        "runs",
        "p50",
        "min",
        "max",
        "root, down",
        "root, up",
        "processor: root",
        "relays",
        "hosts",
        "sum of answers",
        "memory: root",
        "largest relay",
    ];
    table::print(&head, &rows);
    println!(
        "\nThe bytes of the root's links are UDP payload, over all of them, of the median run."
    );
    Ok(())
}

fn tiers(barid: &Path, hosts: usize, runs: usize) -> Result<()> {
    let mut rows = Vec::new();
    for (text, shape) in [
        ("all at the controller", Shape::Flat),
        ("10 relays", Shape::Two(10)),
        ("3 relays, 4 below each", Shape::Three(3, 4)),
    ] {
        let mut world = World::start(barid, shape, hosts)?;
        let costs = repeat(&mut world, EQUAL, runs)?;
        let mut row = vec![text.to_owned()];
        row.extend(cells(&costs));
        rows.push(row);
    }
    table::heading(&format!("{hosts} virtual hosts with irregular names below different trees"));
    let head = [
        "tree",
        "runs",
        "p50",
        "min",
        "max",
        "root, down",
        "root, up",
        "processor: root",
        "relays",
        "hosts",
    ];
    table::print(&head, &rows);
    Ok(())
}

fn repeat(world: &mut World, what: &str, runs: usize) -> Result<Vec<Cost>> {
    for _ in 0..WARM {
        world.run(what)?;
    }
    let until = Instant::now() + LIMIT;
    let mut costs = Vec::new();
    while costs.len() < runs.max(1) && (costs.is_empty() || Instant::now() < until) {
        costs.push(world.run(what)?);
    }
    costs.sort_unstable_by_key(|cost| cost.time);
    Ok(costs)
}

/// How many runs, their times, and what the one in the middle has cost.
fn cells(costs: &[Cost]) -> Vec<String> {
    let spread = Spread::of(costs.iter().map(|cost| cost.time).collect());
    let middle = &costs[(costs.len() - 1) / 2];
    let [runs, p50, _, least, most] = spread.cells();
    let mut row = vec![runs, p50, least, most];
    row.extend([middle.down, middle.up].map(table::bytes));
    row.extend([middle.controller, middle.relays, middle.crowd].map(table::time));
    row
}
