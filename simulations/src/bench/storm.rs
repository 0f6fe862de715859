//! A storm: a relay is killed, and all of its children come back at once.
//!
//! The relay starts again as soon as it is dead, with the same address and state. The children are
//! a crowd, which redials as real hosts do: with full jitter, from 200 ms up to 2 s here.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::wait_for;

use crate::proc::Usage;
use crate::table;
use crate::world::{EQUAL, Shape, World};

const RELAY: &str = "relay1";
/// More rounds tell nothing more.
pub(crate) const ROUNDS: usize = 5;
/// How long it may take until everybody is back.
const LIMIT: Duration = Duration::from_secs(180);

/// Kills the relay of `hosts` so many times.
pub(crate) fn measure(barid: &Path, hosts: usize, rounds: usize) -> Result<()> {
    let mut world = World::start(barid, Shape::Two(1), hosts)?;
    let mut rows = Vec::new();
    for round in 1..=rounds {
        // Beyond the first links, so that nobody's backoff has grown.
        world.run(EQUAL)?;
        let crowd = Usage::of(std::process::id())?;
        let begun = Instant::now();
        world.fleet.kill(RELAY)?;
        world.fleet.restart(RELAY)?;
        let crowded = wait_for("everybody's links to be missed", LIMIT, || {
            Ok((world.crowd.linked() < hosts).then(|| begun.elapsed()))
        })?;
        let half = back(&world, begun, hosts.div_ceil(2))?;
        let all = back(&world, begun, hosts)?;
        world.wait().context("after the storm")?;
        let known = begun.elapsed();
        let relay = Usage::of(world.fleet.pid(RELAY)?)?;
        let crowd = Usage::of(std::process::id())?.since(&crowd);
        let run = world.run(EQUAL)?;
        let mut row = vec![round.to_string()];
        row.extend([crowded, half, all, known, run.time, relay.own, crowd.own].map(table::time));
        rows.push(row);
    }
    table::heading(&format!("kill -9 of the relay of {hosts} hosts, which starts again at once"));
    let head = [
        "round",
        "noticed after",
        "half are back",
        "all are back",
        "the controller knows",
        "the next run",
        "processor: relay",
        "hosts",
    ];
    table::print(&head, &rows);
    Ok(())
}

/// When so many have a link again.
fn back(world: &World, begun: Instant, count: usize) -> Result<Duration> {
    wait_for(&format!("{count} hosts to be back"), LIMIT, || {
        Ok((world.crowd.linked() >= count).then(|| begun.elapsed()))
    })
}
