//! What Barid costs while nothing happens: memory of a host, a relay and the controller, the size
//! of the binary, and the traffic of one link.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::fleet::{Bench, host, relay, spec};
use crate::proc::Memory;
use crate::{push, table, tree};

const HOSTS: usize = 100;
/// A host without a relay, because the controller alone tells what crosses its links.
const DIRECT: &str = "direct-host";
/// For how long a link is watched.
const WATCHED: Duration = Duration::from_secs(30);
/// Runs before memory is read again.
const RUNS: usize = 10;
/// For how long a process keeps memory that it may need again, and a little more.
const KEPT: Duration = Duration::from_secs(8);

/// Measures memory and traffic at rest.
pub(crate) fn measure(barid: &Path, work: &Path) -> Result<()> {
    let mut bench = Bench::start(barid, &[HOSTS])?;
    bench.add(&spec("host", DIRECT, 1, "controller"))?;
    bench.wait()?;
    let (sent, received) = traffic(&mut bench)?;
    let mut rows = Vec::new();
    let relay = bench.fleet.pid(&relay(1))?;
    let controller = bench.fleet.pid("controller")?;
    let hosts = bench.pids("-host")?;
    rows.push(row("host, freshly joined (median of 101)", Memory::median(&hosts)?));
    rows.push(row("relay with 100 hosts", Memory::of(relay)?));
    rows.push(row("controller with 102 nodes", Memory::of(controller)?));
    for _ in 0..RUNS {
        let order = bench.run_true()?;
        ensure!(order["states"]["ok"] == HOSTS + 1, "not all is well: {order:#}");
    }
    std::thread::sleep(KEPT);
    rows.push(row("host, after 10 runs (median of 101)", Memory::median(&hosts)?));
    rows.push(row("relay, after 10 runs", Memory::of(relay)?));
    rows.push(row("controller, after 10 runs", Memory::of(controller)?));
    let source = work.join("idle-source");
    let raw = tree::generate(&source, 1)?;
    let one = host(1, 1);
    push::deliver(&mut bench, &source, &json!({ "sets": [one] }))?;
    std::thread::sleep(KEPT);
    let pushed = format!("after a push of {} files, {}", tree::FILES, table::bytes(raw));
    rows.push(row(&format!("host, {pushed}"), Memory::of(bench.fleet.pid(&one)?)?));
    rows.push(row("relay, after it", Memory::of(relay)?));
    rows.push(row("controller, after it", Memory::of(controller)?));
    table::heading("At rest");
    table::print(&["process", "resident", "of it anonymous"], &rows);
    let binary = std::fs::metadata(barid).context("the binary")?.len();
    println!(
        "\nThe binary has {}. A host's idle link carries {} bytes a second down and {} up, as UDP \
         payload, with a beat every 5 s each way.",
        table::bytes(binary),
        sent,
        received
    );
    Ok(())
}

fn row(what: &str, memory: Memory) -> Vec<String> {
    vec![what.to_owned(), table::memory(memory.resident), table::memory(memory.own)]
}

/// Bytes a second from the controller to the direct host, and back.
fn traffic(bench: &mut Bench) -> Result<(u64, u64)> {
    let before = bench.links()?;
    let begun = Instant::now();
    // The one place where time itself is what is waited for.
    while let Some(left) = WATCHED.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let links = bench.links()?;
    let link = links.iter().find(|link| link.name == DIRECT).context("the direct host's link")?;
    let link = link.since(&before);
    let rate = |bytes: u64| (bytes as f64 / seconds).round() as u64;
    Ok((rate(link.sent), rate(link.received)))
}
