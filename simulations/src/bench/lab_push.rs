//! A push to the hosts of a laboratory, by Barid and by the tools that people use today.
//!
//! The clock runs until the last host has everything. Where a tool first goes to the gateways and
//! from there to the hosts, its first half is shown, too. Bytes are counted at the links, with all
//! headers, never by a tool. After each measurement the first and the last host of each site are
//! compared with the source, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;
use simulations::lab::Lab;
use simulations::wan::Profile;

use crate::fleet::{Bench, host};
use crate::machine::limited;
use crate::peers::{Peer, Took};
use crate::push;
use crate::site::{Crossed, OURS, Options, Tools, ratio, spread};
use crate::ssh::{self, Ssh};
use crate::table;
use crate::workload::{self, Workload};

/// Measures each workload over each profile.
pub(crate) fn measure(barid: &Path, loads: &[Workload], options: &Options) -> Result<()> {
    for profile in &options.profiles {
        for load in loads {
            let Some(lab) = options.lab()? else { return Ok(()) };
            one(barid, &lab, profile, load, options)?;
        }
    }
    Ok(())
}

struct Row {
    what: String,
    tcp: String,
    took: Vec<Option<Took>>,
    crossed: [String; 3],
    /// Files of the old version that are still there.
    left: usize,
}

fn one(barid: &Path, lab: &Lab, name: &str, load: &Workload, options: &Options) -> Result<()> {
    let profile = Profile::named(name)?;
    eprintln!("push {} over {name}", load.name);
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    match by_barid(barid, lab, &profile, load, options) {
        Ok(row) => rows.push(row),
        Err(why) => skipped.push(format!("barid: {why:#}")),
    }
    if options.alone {
        skipped.push("the peers, as was asked".to_owned());
    } else if ssh::is_here() {
        lab.reshape(&Profile::named("lan")?)?;
        let ssh = Ssh::start(lab)?;
        let tools = Tools::new(lab, &ssh)?;
        for control in options.controls() {
            lab.pin_tcp(control)?;
            for peer in Peer::ALL.into_iter().filter(|peer| options.wants(peer.name())) {
                let row = match peer.missing() {
                    Some(program) => Err(anyhow!("{program} is not installed here")),
                    None => by_peer(peer, lab, &tools, control, &profile, load, options),
                };
                match row {
                    Ok(row) => rows.push(row),
                    Err(why) => skipped.push(format!("{} on {control}: {why:#}", peer.name())),
                }
            }
        }
    } else {
        skipped.push("every peer needs an sshd, and OpenSSH is not installed here".into());
    }
    show(name, &profile, load, &rows, options);
    skipped.dedup();
    if !skipped.is_empty() {
        println!("\nSkipped: {}.", skipped.join("; "));
    }
    Ok(())
}

/// The fewest bytes at the rate that loss leaves, and one round trip: the order down, the answer
/// up.
fn limit(profile: &Profile, load: &Workload) -> Duration {
    let rate = profile.down.rate.unwrap_or(u64::MAX) as f64 * (1.0 - profile.down.loss.share());
    profile.round_trip() + Duration::from_secs_f64(load.least as f64 * 8.0 / rate)
}

fn show(name: &str, profile: &Profile, load: &Workload, rows: &[Row], options: &Options) {
    let limit = limit(profile, load);
    let all = |row: &Row| row.took.iter().map(|took| Some((*took)?.all)).collect::<Vec<_>>();
    let ours =
        rows.iter().find(|row| row.tcp == OURS).and_then(|row| spread(&all(row), options.limit).0);
    let cells = rows.iter().map(|row| {
        let half: Vec<_> = row.took.iter().map(|took| (*took)?.gateways).collect();
        let half = spread(&half, options.limit).0.map_or("-".into(), table::time);
        let (median, times) = spread(&all(row), options.limit);
        let mut cells = vec![row.what.clone(), row.tcp.clone(), half];
        cells.extend(times);
        cells.push(table::time(limit));
        cells.push(ratio(median, Some(limit)));
        cells.push(ratio(median, ours));
        cells.extend(row.crossed.clone());
        cells.push(row.left.to_string());
        cells
    });
    let hosts = options.sites * options.hosts;
    let title = format!("{}: to {hosts} hosts in {} sites, link {name}", load.name, options.sites);
    table::heading(&title);
    println!("{}; the fewest bytes: {}.\n", load.size, table::bytes(load.least));
    let head = [
        "what",
        "TCP",
        "gateways",
        "runs",
        "last host: min",
        "median",
        "max",
        "limit",
        "/ limit",
        "/ barid",
        "down a site, last run",
        "up",
        "queue drops",
        "old files left",
    ];
    table::print(&head, &cells.collect::<Vec<_>>());
}

fn by_barid(
    barid: &Path,
    lab: &Lab,
    profile: &Profile,
    load: &Workload,
    options: &Options,
) -> Result<Row> {
    let (mut took, mut crossed, mut left) = (Vec::new(), <[String; 3]>::default(), 0);
    for _ in 0..options.repeats {
        lab.reshape(&Profile::named("lan")?)?;
        let mut bench = Bench::in_lab(barid, lab)?;
        let everybody = json!({ "all": true });
        // The source is at one path: the same push in a new version.
        let source = lab.scratch().join("source");
        if let Some(old) = &load.old {
            copy(old, &source)?;
            push::deliver(&mut bench, &source, &everybody)?;
            fs::remove_dir_all(&source)?;
        }
        copy(&load.new, &source)?;
        lab.reshape(profile)?;
        bench.renew_uplinks(options.sites)?;
        bench.run_true()?;
        let before = Crossed::now(lab);
        let all = by_cli(&bench, &source, options.limit)?;
        crossed = before.cells(lab);
        eprintln!("  barid: {all:.1?}");
        took.push(all.map(|all| Took { gateways: None, all }));
        if all.is_none() {
            break;
        }
        let ends = lab.sites.iter().zip(1..).flat_map(|(site, no)| {
            [1, site.hosts.len()].map(|n| bench.fleet.at(&host(no, n), push::DEST))
        });
        left = checked(&load.new, ends)?;
        fs::remove_dir_all(&source)?;
    }
    Ok(Row { what: "barid push".into(), tcp: OURS.into(), took, crossed, left })
}

/// `barid push`, from its start to its end. None: it took longer than the limit, and was ended.
fn by_cli(bench: &Bench, source: &Path, limit: Duration) -> Result<Option<Duration>> {
    let source = source.to_str().context("a plain path")?;
    let args = ["push", source, "--dest", push::DEST, "-a", "--all-at-once", "-q", "-t", "60s"];
    let mut child = bench.fleet.command(&args).stdout(Stdio::null()).spawn()?;
    let Some((took, status)) = limited(&mut child, limit)? else {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    };
    ensure!(status.success(), "barid push: {status}");
    Ok(Some(took))
}

fn by_peer(
    peer: Peer,
    lab: &Lab,
    tools: &Tools,
    control: &str,
    profile: &Profile,
    load: &Workload,
    options: &Options,
) -> Result<Row> {
    let (mut took, mut crossed, mut left) = (Vec::new(), <[String; 3]>::default(), 0);
    for _ in 0..options.repeats {
        for machine in lab.machines().filter(|machine| **machine != lab.root) {
            let data = ssh::folder(lab, machine).join("data");
            fs::remove_dir_all(&data).ok();
            match &load.old {
                Some(old) => copy(old, &data)?,
                None => fs::create_dir_all(&data)?,
            }
        }
        lab.reshape(profile)?;
        eprintln!("  {} on {control}", peer.name());
        let before = Crossed::now(lab);
        let one = peer.push(lab, tools, &load.new, options.limit)?;
        crossed = before.cells(lab);
        lab.reshape(&Profile::named("lan")?)?;
        if one.is_some() {
            let ends = lab.sites.iter().flat_map(|site| [site.hosts.first(), site.hosts.last()]);
            let ends = ends.flatten().map(|machine| ssh::folder(lab, machine).join("data"));
            left = checked(&load.new, ends)?;
        }
        eprintln!("    {one:.1?}");
        took.push(one);
        if one.is_none() {
            // It would take as long again.
            break;
        }
    }
    Ok(Row { what: peer.name().into(), tcp: control.into(), took, crossed, left })
}

/// Compares these folders with the source. Returns the most files that one of them has besides.
fn checked(source: &Path, folders: impl Iterator<Item = PathBuf>) -> Result<usize> {
    let left = folders.map(|folder| workload::compare(source, &folder));
    Ok(left.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "copying {} to {} has failed", from.display(), to.display());
    Ok(())
}
