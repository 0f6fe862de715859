//! The benchmarks: real processes on loopback, and the simulator, as tables to be pasted into
//! `docs/benchmarks.md`.
//!
//! Each part makes what it needs below the temporary folder, is bounded in time, and leaves no
//! process and no file. Figures from one run may be compared with each other; figures from
//! different machines may not, which is why each table carries its own yardstick: the cost of the
//! same processes without Barid, the size of the same tree under zstd.
//!
//! It measures the release binary that lies beside it and does not build it.

// What cannot be shared with the simulator lives beside it, not in it.
#[path = "../bench/alerts.rs"]
mod alerts;
#[path = "../bench/api.rs"]
mod api;
#[path = "../bench/beside.rs"]
mod beside;
#[path = "../bench/bulk.rs"]
mod bulk;
#[path = "../bench/bus.rs"]
mod bus;
#[path = "../bench/chart.rs"]
mod chart;
#[path = "../bench/delta.rs"]
mod delta;
#[path = "../bench/delta_peers.rs"]
mod delta_peers;
#[path = "../bench/emulator.rs"]
mod emulator;
#[path = "../bench/events.rs"]
mod events;
#[path = "../bench/fan.rs"]
mod fan;
#[path = "../bench/fleet.rs"]
mod fleet;
#[path = "../bench/helping.rs"]
mod helping;
#[path = "../bench/hostile.rs"]
mod hostile;
#[path = "../bench/idle.rs"]
mod idle;
#[path = "../bench/kill.rs"]
mod kill;
#[path = "../bench/kill_push.rs"]
mod kill_push;
#[path = "../bench/lab_push.rs"]
mod lab_push;
#[path = "../bench/lab_run.rs"]
mod lab_run;
#[path = "../bench/links.rs"]
mod links;
#[path = "../bench/machine.rs"]
mod machine;
#[path = "../bench/nats.rs"]
mod nats;
#[path = "../bench/peers.rs"]
mod peers;
#[path = "../bench/plan.rs"]
mod plan;
#[path = "../bench/proc.rs"]
mod proc;
#[path = "../bench/push.rs"]
mod push;
#[path = "../bench/rehome.rs"]
mod rehome;
#[path = "../bench/run.rs"]
mod run;
#[path = "../bench/scale.rs"]
mod scale;
#[path = "../bench/scale_model.rs"]
mod scale_model;
#[path = "../bench/sets.rs"]
mod sets;
#[path = "../bench/siblings.rs"]
mod siblings;
#[path = "../bench/simulator.rs"]
mod simulator;
#[path = "../bench/site.rs"]
mod site;
#[path = "../bench/ssh.rs"]
mod ssh;
#[path = "../bench/storm.rs"]
mod storm;
#[path = "../bench/table.rs"]
mod table;
#[path = "../bench/tree.rs"]
mod tree;
#[path = "../bench/viewer.rs"]
mod viewer;
#[path = "../bench/workload.rs"]
mod workload;
#[path = "../bench/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use tests::killing::Victim;

/// Measures Barid. Build the release binary first: cargo build --release -p cli
#[derive(Parser)]
struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    part: Part,
    /// The old and the new version, for `delta`
    #[arg(value_name = "OLD NEW", num_args = 0..=2)]
    versions: Vec<PathBuf>,
    /// The binary to measure [default: the one beside this one]
    #[arg(long, value_name = "FILE")]
    barid: Option<PathBuf>,
    /// Push this tree instead of the generated one
    #[arg(long, value_name = "DIR")]
    tree: Option<PathBuf>,
    /// Hosts of each fleet of `run`; may be given several times [default: 100 and 300]
    #[arg(long, value_name = "N")]
    hosts: Vec<usize>,
    /// Where `scale-model` writes its charts
    #[arg(long, value_name = "DIR", default_value = "docs")]
    docs: PathBuf,
    /// The most sites of a tree that `scale-model` simulates
    #[arg(long, value_name = "SITES", default_value_t = 1_024)]
    played: usize,
    /// Size of the large file of `bulk` and of `kill-push`
    #[arg(long, value_name = "N", default_value_t = 1_024)]
    mib: usize,
    /// What a process that `delta` starts does
    #[arg(long, hide = true)]
    step: Option<String>,
    /// Where it does it
    #[arg(long, hide = true)]
    work: Option<PathBuf>,
    /// Runs of each kind
    #[arg(long, value_name = "N", default_value_t = 50)]
    runs: usize,
    #[command(flatten)]
    kills: KillArgs,
    #[command(flatten)]
    lab: LabArgs,
}

/// For `kill-push`.
#[derive(clap::Args)]
struct KillArgs {
    /// How often somebody is killed during each push
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "In kill-push")]
    kills: usize,
    /// What the dice begin with
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "In kill-push")]
    seed: u64,
    /// Who is killed; several times [default: each in a push of its own]
    #[arg(long, value_enum, help_heading = "In kill-push")]
    who: Vec<Who>,
}

/// Who is killed.
#[derive(Clone, Copy, ValueEnum)]
enum Who {
    Relay,
    Host,
    Both,
    Controller,
}

/// For the parts in a laboratory.
#[derive(clap::Args)]
struct LabArgs {
    /// What the sites' links are like; may be given several times [default: weak and veryweak]
    #[arg(long, value_name = "NAME", help_heading = "In a laboratory")]
    profile: Vec<String>,
    /// TCP congestion controls for the peers, pinned in every namespace; several times
    /// [default: bbr and cubic]
    #[arg(long, value_name = "NAME", help_heading = "In a laboratory")]
    tcp: Vec<String>,
    /// What to push: noise, headers, numpy, django; several times [default: all]
    #[arg(long, value_name = "NAME", help_heading = "In a laboratory")]
    workload: Vec<String>,
    /// Push from one folder to another instead
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], help_heading = "In a laboratory")]
    pair: Vec<PathBuf>,
    /// Sites, each behind a link of its own
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "In a laboratory")]
    sites: usize,
    /// Hosts of each site
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "In a laboratory")]
    site_hosts: usize,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "In a laboratory")]
    repeats: usize,
    /// Only peers whose names in the table hold this, as "rsync" or "tree"; several times
    #[arg(long, value_name = "WORD", help_heading = "In a laboratory")]
    peer: Vec<String>,
    /// Barid alone, without the peers
    #[arg(long, help_heading = "In a laboratory")]
    alone: bool,
    /// Seconds after which a peer is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 300, help_heading = "In a laboratory")]
    limit: u64,
}

/// A part of the benchmarks.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Seeds per second of the simulator, and its largest run
    Sim,
    /// Trees of up to a million hosts: simulated, computed, and drawn below docs/scale/; takes
    /// minutes and 6 GB
    ScaleModel,
    /// `true` on hundreds of hosts
    Run,
    /// A tree of 6,000 files to 20 hosts
    Push,
    /// Sets of names: folding, expanding, operators
    Sets,
    /// Memory, binary size and traffic at rest
    Idle,
    /// What takes one folder or file to another: bench delta OLD NEW
    Delta,
    /// Congestion controllers and orders on emulated links, in virtual time
    Links,
    /// A storm of events at a relay and at a host, the core alone
    Events,
    /// Planning a distribution: who gets which files, the controller's rules alone
    Plan,
    /// The emulator of links: how exact, and how fast
    Emulator,
    /// `true` behind emulated links, beside pdsh, clush and ansible; needs root
    LabRun,
    /// Pushes behind emulated links, beside rsync, tar and clush; needs root; takes long
    LabPush,
    /// `true` and `uname -a` on loopback, beside pdsh, clush and ansible over a real sshd
    Beside,
    /// Thousands of virtual hosts behind real relays
    Scale,
    /// A thousand virtual hosts whose relay is killed
    Storm,
    /// A hundred hosts that print ten megabytes each, and one that prints without end
    Hostile,
    /// 100,000 small files and one of --mib to one host, beside a copy by rsync
    Bulk,
    /// One file to 100 hosts of a relay, beside nginx
    Fan,
    /// Messages between programs through one to three links, beside nats-server
    Bus,
    /// From a kill to the word of it: hosts, relays, the controller; some three minutes
    Alerts,
    /// From the end of a relay to its hosts being behind another: killed, and standing still; some
    /// two minutes
    Rehome,
    /// A push to 96 hosts of a relay, alone and beside four slow ones; some five minutes
    Siblings,
    /// The same push to hosts that fetch from each other and to hosts that do not; some ten minutes
    Helping,
    /// The memory of `barid run -b` on 50,000 answers
    Viewer,
    /// Everything but the parts that are run by name only
    All,
    /// No measurement but a trial: rounds of kill -9 during runs, as many as --runs
    Kill,
    /// No measurement but a trial: a push of --mib during which nodes are killed again and again,
    /// over a link like mid50 or --profile; with 1 GiB some ten minutes for each of --who
    KillPush,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let wants = |part| args.part == part || args.part == Part::All;
    if let (Some(step), Some(work), Some(old)) = (&args.step, &args.work, args.versions.first()) {
        return delta::run_step(work, step, old);
    }
    let work = tempfile::Builder::new().prefix("barid-bench-").tempdir()?;
    // A benchmark that is ended from outside shall leave nothing, either.
    let _guard = simulations::lab::Guard::folder(work.path())?;
    machine::print(work.path())?;
    // First, while this process is small: its own memory is what a large run is measured by.
    if wants(Part::Sim) {
        simulator::measure()?;
    }
    if wants(Part::Links) {
        links::measure()?;
    }
    if wants(Part::Events) {
        events::measure()?;
    }
    if wants(Part::Plan) {
        plan::measure()?;
    }
    if args.part == Part::Emulator {
        emulator::measure()?;
    }
    if args.part == Part::ScaleModel {
        return scale_model::measure(&args.docs, args.played);
    }
    if matches!(args.part, Part::Sim | Part::Links | Part::Events | Part::Plan | Part::Emulator) {
        return Ok(());
    }
    if args.part == Part::Delta {
        let [old, new] = args.versions.as_slice() else { bail!("bench delta OLD NEW") };
        return delta::measure(work.path(), old, new);
    }
    let barid = match &args.barid {
        Some(path) => path.clone(),
        None => tests::binary().context("build it first: cargo build --release -p cli")?,
    };
    // A copy, so that a build in between changes nothing.
    let copy = work.path().join("barid");
    std::fs::copy(&barid, &copy).with_context(|| format!("copying {}", barid.display()))?;
    if args.part == Part::Kill {
        let hosts = args.hosts.first().copied().unwrap_or(30);
        return kill::trial(&copy, hosts, args.runs);
    }
    if args.part == Part::KillPush {
        return kill_push::trial(&copy, work.path(), &args.kill_plan());
    }
    if args.part == Part::Beside {
        let sizes = if args.hosts.is_empty() { vec![100, 300, 1_000] } else { args.hosts };
        let limit = Duration::from_secs(args.lab.limit);
        return beside::measure(&copy, work.path(), &sizes, args.lab.alone, limit);
    }
    if args.part == Part::Hostile {
        return hostile::measure(&copy, args.hosts.first().copied().unwrap_or(100));
    }
    if args.part == Part::Bulk {
        return bulk::measure(&copy, work.path(), args.mib);
    }
    if args.part == Part::Fan {
        return fan::measure(&copy, work.path());
    }
    if args.part == Part::Bus {
        return bus::measure(&copy, work.path());
    }
    if args.part == Part::Alerts {
        return alerts::measure(&copy);
    }
    if args.part == Part::Rehome {
        return rehome::measure(&copy);
    }
    if args.part == Part::Siblings {
        return siblings::measure(&copy);
    }
    if args.part == Part::Helping {
        return helping::measure(&copy, work.path());
    }
    if args.part == Part::Viewer {
        let hosts = args.hosts.first().copied().unwrap_or(50_000);
        return viewer::measure(&copy, work.path(), u32::try_from(hosts)?);
    }
    if args.part == Part::Scale {
        return scale::measure(&copy, args.hosts.first().copied().unwrap_or(10_000), args.runs);
    }
    if args.part == Part::Storm {
        let hosts = args.hosts.first().copied().unwrap_or(1_000);
        return storm::measure(&copy, hosts, args.runs.min(storm::ROUNDS));
    }
    if wants(Part::Run) {
        let sizes = if args.hosts.is_empty() { vec![100, 300] } else { args.hosts };
        run::measure(&copy, &sizes, args.runs)?;
    }
    if wants(Part::Sets) {
        sets::measure(&copy)?;
    }
    if wants(Part::Push) {
        push::measure(&copy, work.path(), args.tree.as_deref())?;
    }
    if wants(Part::Idle) {
        idle::measure(&copy, work.path())?;
    }
    match args.part {
        Part::LabRun => lab_run::measure(&copy, &args.lab.options()),
        Part::LabPush => {
            lab_push::measure(&copy, &args.lab.loads(work.path())?, &args.lab.options())
        }
        _ => Ok(()),
    }
}

impl Args {
    fn kill_plan(&self) -> kill_push::Plan {
        let who = self.kills.who.iter().map(|who| match who {
            Who::Relay => Victim::Relay,
            Who::Host => Victim::Host,
            Who::Both => Victim::Both,
            Who::Controller => Victim::Controller,
        });
        kill_push::Plan {
            mib: self.mib.max(1),
            kills: self.kills.kills,
            seed: self.kills.seed,
            who: who.collect(),
            profile: self.lab.profile.first().cloned().unwrap_or_else(|| "mid50".into()),
        }
    }
}

impl LabArgs {
    fn options(&self) -> site::Options {
        let or = |given: &[String], else_: [&str; 2]| match given {
            [] => else_.map(String::from).to_vec(),
            given => given.to_vec(),
        };
        site::Options {
            sites: self.sites.max(1),
            hosts: self.site_hosts.max(1),
            profiles: or(&self.profile, ["weak", "veryweak"]),
            controls: or(&self.tcp, ["bbr", "cubic"]),
            repeats: self.repeats.max(1),
            alone: self.alone,
            only: self.peer.clone(),
            limit: Duration::from_secs(self.limit),
        }
    }

    /// What is to be pushed. What cannot be fetched is skipped, with the reason.
    fn loads(&self, work: &Path) -> Result<Vec<workload::Workload>> {
        if let [old, new] = &self.pair[..] {
            return Ok(vec![workload::pair(old, new)?]);
        }
        let names: Vec<_> = self.workload.iter().map(String::as_str).collect();
        let names = if names.is_empty() { workload::NAMES.to_vec() } else { names };
        let mut loads = Vec::new();
        for name in names {
            match workload::fetch(name, &work.join("loads")) {
                Ok(load) => loads.push(load),
                Err(error) => println!("\n{name}: skipped, {error:#}"),
            }
        }
        Ok(loads)
    }
}
