//! Hosts that print far too much: what it costs the nodes above them, the command that shows it,
//! and the host beside them.
//!
//! All hosts are real processes behind one relay. First all but one print ten megabytes of noise
//! without a single end of line, at once; then one host alone prints lines as fast as it can while
//! somebody watches. Meanwhile `true` is run on the host that is left, again and again.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::fleet::{Bench, host, relay};
use crate::proc;
use crate::table::{self, Spread};

const NOISE: u64 = 10_000_000;
const LINE: &str = "a line that says very little";
/// For how long one host prints lines.
const SECONDS: u64 = 15;
const LIMIT: Duration = Duration::from_secs(300);
/// Runs on the quiet host before anybody else prints.
const QUIET: usize = 20;

/// Measures a relay with so many hosts.
pub(crate) fn measure(barid: &Path, hosts: usize) -> Result<()> {
    ensure!(hosts > 1, "one host is left alone, so there must be two");
    let mut bench = Bench::start(barid, &[hosts])?;
    let quiet = host(1, hosts);
    let noisy = format!("site1-host[1-{}]", hosts - 1);
    let before: Vec<_> = (0..QUIET).map(|_| alone(&mut bench, &quiet)).collect::<Result<_>>()?;
    let mut rows = vec![row(&bench, "nothing, before", None, before)?];
    let line = format!("head -c {NOISE} /dev/urandom");
    let noise = begin(&mut bench, &noisy, &line)?;
    let (peak, times) = beside(&mut bench, &["attach", &noise, "-b"], &quiet)?;
    let what = format!("{} hosts: {} of noise each", hosts - 1, table::bytes(NOISE));
    rows.push(row(&bench, &what, Some(peak), times)?);
    counted(&mut bench, &noise, hosts - 1)?;
    let line = format!("timeout {SECONDS} yes '{LINE}'; true");
    let lines = begin(&mut bench, &host(1, 1), &line)?;
    let (peak, times) = beside(&mut bench, &["attach", &lines], &quiet)?;
    let detail = bench.api.ask("GET", &format!("/v1/orders/{lines}"), None)?;
    let bytes = detail["answers"][0]["stdout_size"].as_u64().context("a size")?;
    let rate = bytes / (LINE.len() as u64 + 1) / SECONDS;
    let what = format!("one host: {rate} lines a second for {SECONDS} s, watched");
    rows.push(row(&bench, &what, Some(peak), times)?);
    table::heading(&format!("Hosts that print too much, {hosts} behind one relay"));
    let head = [
        "who prints",
        "peak: command",
        "relay",
        "controller",
        "`true` beside them: runs",
        "p50",
        "p99",
        "min",
        "max",
    ];
    table::print(&head, &rows);
    println!("\nPeaks are resident memory since the start of each process, whatever came later.");
    Ok(())
}

fn row(
    bench: &Bench,
    what: &str,
    command: Option<u64>,
    times: Vec<Duration>,
) -> Result<Vec<String>> {
    let peak = |name: &str| anyhow::Ok(table::memory(proc::peak(bench.fleet.pid(name)?)?));
    let command = command.map_or_else(|| "-".into(), table::memory);
    let mut row = vec![what.to_owned(), command, peak(&relay(1))?, peak("controller")?];
    row.extend(Spread::of(times).cells());
    Ok(row)
}

/// Runs a command of the operator's to its end, and meanwhile `true` on one host. Returns the peak
/// of the command, and the times of the others.
fn beside(bench: &mut Bench, args: &[&str], quiet: &str) -> Result<(u64, Vec<Duration>)> {
    let mut command = bench.fleet.command(args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| proc::to_its_end(&mut child, LIMIT));
        let mut times = Vec::new();
        while !waiting.is_finished() {
            times.push(alone(bench, quiet)?);
        }
        let ended = waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (status, peak) = ended?;
        ensure!(status.success(), "{args:?}: {status}");
        Ok((peak, times))
    })
}

/// `true` on one host.
fn alone(bench: &mut Bench, host: &str) -> Result<Duration> {
    let run = json!({
        "targets": { "sets": [host] }, "argv": ["true"],
        "reach_ms": 60_000, "timeout_ms": 60_000, "output_limit": 1_000,
    });
    let begun = Instant::now();
    let order = bench.api.ask("POST", "/v1/runs", Some(&run))?;
    let order = bench.api.follow(order["id"].as_str().context("an order has an id")?)?;
    ensure!(order["states"]["ok"] == 1, "{host}: {}", order["states"]);
    Ok(begun.elapsed())
}

/// Gives an order for a line of shell. Returns its id.
fn begin(bench: &mut Bench, hosts: &str, line: &str) -> Result<String> {
    let run = json!({
        "targets": { "sets": [hosts] }, "argv": [line], "shell": true,
        "reach_ms": 60_000, "timeout_ms": 240_000, "output_limit": 192 << 10,
    });
    let order = bench.api.ask("POST", "/v1/runs", Some(&run))?;
    Ok(order["id"].as_str().context("an order has an id")?.to_owned())
}

/// Whether everybody's output was counted in full.
fn counted(bench: &mut Bench, id: &str, hosts: usize) -> Result<()> {
    let detail = bench.api.ask("GET", &format!("/v1/orders/{id}"), None)?;
    let mut counted = 0;
    for answer in detail["answers"].as_array().context("answers")? {
        ensure!(answer["state"] == "ok", "{}: {}", answer["hosts"], answer["state"]);
        ensure!(answer["stdout_size"] == NOISE, "{}: {}", answer["hosts"], answer["stdout_size"]);
        counted += answer["hosts"].as_array().map_or(0, Vec::len);
    }
    ensure!(counted == hosts, "{counted} of {hosts} hosts were counted");
    Ok(())
}
