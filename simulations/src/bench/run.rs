//! `true` on hundreds of hosts: how long from the question to the last answer, and where the time
//! goes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::fleet::Bench;
use crate::machine::timed;
use crate::proc::Usage;
use crate::table::{self, Spread};

const RELAYS: usize = 3;
/// Runs before it counts.
const WARM: usize = 3;
/// No row takes longer; the table tells how many runs it got.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures fleets of these sizes.
pub(crate) fn measure(barid: &Path, sizes: &[usize], runs: usize) -> Result<()> {
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for hosts in sizes {
        let behind: Vec<_> = (0..RELAYS).map(|n| (hosts + n) / RELAYS).collect();
        let (started, mut bench) = timed(|| Bench::start(barid, &behind))?;
        let starting = started.as_secs_f64();
        eprintln!("{hosts} hosts are up after {starting:.1} s");
        for _ in 0..WARM {
            bench.run_true()?;
        }
        let before = Shares::read(&bench)?;
        let api = repeat(runs, || all_well(&mut bench, *hosts))?;
        let after = Shares::read(&bench)?;
        costs.push(after.row(&before, *hosts, api.len()));
        let cli = repeat(runs, || by_cli(&bench))?;
        let floor = repeat(runs, || local(*hosts))?;
        let (api, cli, floor) = (Spread::of(api), Spread::of(cli), Spread::of(floor));
        let least = floor.rank(0.5).as_secs_f64();
        for (what, spread) in [
            ("over the API", api),
            ("barid run -a -b -- true", cli),
            ("the same processes, started here", floor),
        ] {
            let mut row = vec![format!("{hosts} hosts: {what}")];
            row.push(table::ratio(spread.rank(0.5).as_secs_f64(), least));
            row.splice(1..1, spread.cells());
            times.push(row);
        }
    }
    table::heading("`true` on hundreds of hosts behind three relays, everything on this machine");
    let head = ["what", "runs", "p50", "p99", "min", "max", "p50 / floor"];
    table::print(&head, &times);
    println!("\nProcessor time and bytes written, for each run over the API:\n");
    let head = ["hosts", "controller", "relay", "host", "command", "all", "written per host"];
    table::print(&head, &costs);
    println!("\npdsh, clush and ansible are beside it in the part `lab-run`.");
    Ok(())
}

fn repeat(runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let until = Instant::now() + LIMIT;
    let mut times = Vec::new();
    while times.len() < runs && Instant::now() < until {
        times.push(timed(&mut work)?.0);
    }
    Ok(times)
}

fn all_well(bench: &mut Bench, hosts: usize) -> Result<()> {
    let order = bench.run_true()?;
    ensure!(order["states"]["ok"] == hosts, "not all is well: {order:#}");
    Ok(())
}

fn by_cli(bench: &Bench) -> Result<()> {
    let output = bench.fleet.barid(&["run", "-a", "-b", "--", "true"])?;
    ensure!(output.status.success(), "barid run: {}", tests::show(&output.stderr));
    Ok(())
}

/// The floor: so many processes, all started before one is waited for, by one thread per core.
fn local(count: usize) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = |thread: usize| move || start_and_wait((count + thread) / threads);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|n| scope.spawn(share(n))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn start_and_wait(count: usize) -> Result<()> {
    let start = |_| -> Result<Child> {
        let mut command = Command::new("/bin/true");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("starting /bin/true")
    };
    let children = (0..count).map(start).collect::<Result<Vec<_>>>()?;
    for mut child in children {
        ensure!(child.wait()?.success(), "/bin/true has failed");
    }
    Ok(())
}

/// Who has used how much.
struct Shares {
    controller: Usage,
    relays: Usage,
    hosts: Usage,
}

impl Shares {
    fn read(bench: &Bench) -> Result<Shares> {
        Ok(Shares {
            controller: Usage::of(bench.fleet.pid("controller")?)?,
            relays: Usage::sum(&bench.pids("-relay")?)?,
            hosts: Usage::sum(&bench.pids("-host")?)?,
        })
    }

    /// Cells: what each part cost, for each run.
    fn row(&self, before: &Shares, hosts: usize, runs: usize) -> Vec<String> {
        let runs = u32::try_from(runs.max(1)).unwrap_or(u32::MAX);
        let controller = self.controller.since(&before.controller).own / runs;
        let relays = self.relays.since(&before.relays).own / runs;
        let of_hosts = self.hosts.since(&before.hosts);
        let (own, children) = (of_hosts.own / runs, of_hosts.children / runs);
        let count = u32::try_from(hosts).unwrap_or(u32::MAX);
        vec![
            hosts.to_string(),
            table::time(controller),
            table::time(relays / RELAYS as u32),
            table::time(own / count),
            table::time(children / count),
            table::time(controller + relays + own + children),
            table::bytes(of_hosts.written / u64::from(runs) / u64::from(count)),
        ]
    }
}
