//! A tree of thousands of files to twenty hosts behind two relays: how long, and how many bytes
//! cross each relay's uplink, against the size of the same tree under zstd.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::fleet::{Bench, Link, host, relay};
use crate::machine::timed;
use crate::proc::Usage;
use crate::table;
use crate::tree;

const HOSTS: [usize; 2] = [10, 10];
/// Of the generated tree.
const SEED: u64 = 20_260_714;
/// Where the tree goes at the hosts.
pub(crate) const DEST: &str = "/srv/tree";

/// What one push has cost.
struct Cost {
    what: &'static str,
    took: Duration,
    /// By relay: what crossed its uplink.
    links: Vec<Link>,
    controller: Usage,
    relay: Usage,
    host: Usage,
}

/// Pushes a tree, then again with one file changed, then again with nothing changed.
pub(crate) fn measure(barid: &Path, work: &Path, given: Option<&Path>) -> Result<()> {
    let source = work.join("source");
    match given {
        // A copy, because the second push changes a file.
        Some(dir) => copy(dir, &source)?,
        None => drop(tree::generate(&source, SEED)?),
    }
    let tar = tree::tar(&source)?;
    let (three, nine) = (tree::zstd_size(&tar, 3)?, tree::zstd_size(&tar, 9)?);
    let (count, raw) = (tree::files(&source)?.len(), size(&source)?);
    drop(tar);
    let mut bench = Bench::start(barid, &HOSTS)?;
    let lost = lost_datagrams();
    let mut costs = vec![push(&mut bench, "first", &source)?];
    let lost = lost_datagrams().saturating_sub(lost);
    let changed = tree::change(&source)?;
    let changed = std::fs::metadata(&changed)?.len();
    costs.push(push(&mut bench, "one file changed", &source)?);
    costs.push(push(&mut bench, "nothing changed", &source)?);

    let name = given.map_or("generated".to_owned(), |dir| dir.display().to_string());
    table::heading("A tree to 20 hosts behind two relays");
    println!(
        "The tree ({name}): {count} files, {}; as one file in the manner of tar (a header of 512 \
         bytes and the bytes of each file, by path) {} under `zstd -3` and {} under `zstd -9`. \
         The changed file has {}.\n",
        table::bytes(raw),
        table::bytes(three),
        table::bytes(nine),
        table::bytes(changed),
    );
    let rows: Vec<_> = costs.iter().map(|cost| cost.bytes(three, nine)).collect();
    let head = [
        "push",
        "to the last host",
        "content over each uplink",
        "/ zstd -3",
        "/ zstd -9",
        "wire bytes over each",
        "/ zstd -3",
        "/ zstd -9",
    ];
    table::print(&head, &rows);
    println!("\nProcessor time and bytes written:\n");
    let rows: Vec<_> = costs.iter().map(Cost::usage).collect();
    let head = ["push", "controller", "written", "one relay", "written", "one host", "written"];
    table::print(&head, &rows);
    println!(
        "\nDatagrams dropped on this machine during the first push, because a socket's buffer was \
         full: {lost}. rsync is beside it in the part `lab-push`."
    );
    Ok(())
}

/// Datagrams that this machine has dropped at full receive buffers since it started.
fn lost_datagrams() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(numbers.split(' '));
    let found = pairs.find(|(name, _)| *name == "RcvbufErrors");
    found.and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "copying {} has failed", from.display());
    Ok(())
}

fn size(dir: &Path) -> Result<u64> {
    let sizes = tree::files(dir)?.into_iter().map(|path| Ok(std::fs::metadata(path)?.len()));
    sizes.sum()
}

fn push(bench: &mut Bench, what: &'static str, source: &Path) -> Result<Cost> {
    let pids = |bench: &Bench| -> Result<[Usage; 3]> {
        let pid = |name: &str| Usage::of(bench.fleet.pid(name)?);
        Ok([pid("controller")?, pid(&relay(1))?, pid(&host(1, 1))?])
    };
    let (links, usage) = (bench.links()?, pids(bench)?);
    let (took, ()) = timed(|| deliver(bench, source, &json!({ "all": true })))?;
    let now = pids(bench)?;
    let links = bench.links()?.iter().map(|link| link.since(&links)).collect();
    let [controller, relay, host] = [0, 1, 2].map(|n: usize| now[n].since(&usage[n]));
    Ok(Cost { what, took, links, controller, relay, host })
}

/// Pushes a tree and waits for the last host.
pub(crate) fn deliver(bench: &mut Bench, source: &Path, targets: &serde_json::Value) -> Result<()> {
    let new = json!({
        "targets": targets, "source": source.to_str().context("a plain path")?, "dest": DEST,
        "reach_ms": 15_000, "hold_ms": 3_600_000, "all_at_once": true,
    });
    let last = bench.api.last_line("POST", "/v1/pushes", Some(&new))?;
    let id = last["order"]["id"].as_str().with_context(|| format!("not ordered: {last}"))?;
    let order = bench.api.follow(id)?;
    ensure!(order["states"]["ok"] == order["count"], "not all is well: {order:#}");
    Ok(())
}

impl Cost {
    /// The largest of the relays' links: they should all be the same.
    fn most(&self, of: fn(&Link) -> u64) -> u64 {
        self.links.iter().map(of).max().unwrap_or_default()
    }

    fn bytes(&self, three: u64, nine: u64) -> Vec<String> {
        let (content, wire) = (self.most(|link| link.content), self.most(|link| link.sent));
        let mut row = vec![self.what.to_owned(), table::time(self.took)];
        for bytes in [content, wire] {
            row.push(table::bytes(bytes));
            row.push(table::ratio(bytes as f64, three as f64));
            row.push(table::ratio(bytes as f64, nine as f64));
        }
        row
    }

    fn usage(&self) -> Vec<String> {
        let mut row = vec![self.what.to_owned()];
        for usage in [self.controller, self.relay, self.host] {
            row.push(table::time(usage.own));
            row.push(table::bytes(usage.written));
        }
        row
    }
}
