//! Planning a distribution: who gets which file, and in which groups, for a fleet of the size of
//! the specification and for one ten times as large.
//!
//! The controller's own rules on made-up domains, in this process: no tables, no packing, nothing
//! is sent. A third of all files lack somewhere only, the others everywhere.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use controller::fleet::domain::{Domain, DomainPath};
use controller::fleet::levels::Levels;
use controller::fleet::plan::groups;
use controller::fleet::precedence::{Member, winners};
use mesh::HostSet;

use crate::table;

/// Hosts and files of each fleet.
const SIZES: [(usize, usize); 2] = [(1_000, 400), (10_000, 2_000)];
/// Groups of hosts at the second level.
const GROUPS: usize = 50;
/// How often each is planned; the least time counts, since noise only adds.
const TURNS: usize = 5;
/// Each hardware, and the one system that it fits.
const HARDWARE: [[&str; 2]; 3] = [["sun3", "sunos"], ["sun4", "sunos"], ["ws", "riscos"]];

/// Measures, and prints a table.
pub(crate) fn measure() -> Result<()> {
    let levels = levels()?;
    let mut rows = Vec::new();
    for (hosts, files) in SIZES {
        let members = (0..hosts).map(member).collect::<Result<Vec<_>>>()?;
        let paths = (0..files).map(path).collect::<Result<Vec<_>>>()?;
        let turns = (0..TURNS).map(|_| plan(&levels, &members, &paths));
        let turns = turns.collect::<Result<Vec<_>>>()?;
        let least = |time: fn(&Planned) -> Duration| turns.iter().map(time).min();
        let (known, all) = (least(|turn| turn.known), least(|turn| turn.all));
        let [known, all] = [known, all].map(|time| table::time(time.unwrap_or_default()));
        let (pairs, groups) = (turns[0].pairs.to_string(), turns[0].groups.to_string());
        rows.push(vec![hosts.to_string(), files.to_string(), pairs, groups, known, all]);
    }
    table::heading("Planning a distribution, one thread: the least of 5");
    let head = ["hosts", "files", "due, host by file", "groups", "who gets what", "with groups"];
    table::print(&head, &rows);
    Ok(())
}

/// What was planned, and how long it took.
struct Planned {
    pairs: u64,
    groups: usize,
    known: Duration,
    all: Duration,
}

fn plan(levels: &Levels, members: &[Member], paths: &[DomainPath]) -> Result<Planned> {
    let began = Instant::now();
    let winners = winners(levels, members, &paths.iter().collect::<Vec<_>>());
    let known = began.elapsed();
    let lacks = |n: usize| HostSet::from_ranges([(0, u32::try_from(n).expect("few"))]);
    let due = winners.of_entry.iter().enumerate();
    let due: Vec<HostSet> = due
        .map(|(n, set)| if n % 3 == 0 { set.intersection(&lacks(n)) } else { set.clone() })
        .collect();
    let groups = groups(&due);
    let pairs: u64 = due.iter().map(HostSet::len).sum();
    let planned = Planned { pairs, groups: groups.len(), known, all: began.elapsed() };
    ensure!(pairs > 0, "nobody gets anything");
    Ok(planned)
}

/// The levels of the specification's examples, with a view and its groups.
fn levels() -> Result<Levels> {
    let mut levels = Levels::default();
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    levels.levels[2].values = set(&["sunos", "riscos"]);
    levels.levels[3].values = set(&["sun3", "sun4", "ws"]);
    for [hardware, os] in HARDWARE {
        levels.levels[3].only.insert(hardware.into(), set(&[os]));
    }
    for name in ["adm", "prt", "cc.adm", "osgrp.adm", "lab1.prt"] {
        levels.create(&name.parse()?)?;
    }
    for n in 0..GROUPS {
        levels.create(&format!("g{n}.adm").parse()?)?;
    }
    Ok(levels)
}

fn member(n: usize) -> Result<Member> {
    let [hardware, os] = HARDWARE[n % HARDWARE.len()];
    let disk = if n.is_multiple_of(7) { "diskless" } else { "disked" };
    let domain: Domain = format!("{disk}.{hardware}.{os}.g{}.adm", n % GROUPS).parse()?;
    Ok(Member { name: format!("h{n:05}"), domains: vec![domain] })
}

fn path(n: usize) -> Result<DomainPath> {
    let domain = match n % 5 {
        0 => "common.adm".to_owned(),
        1 => format!("g{}.adm", n % GROUPS),
        2 => "sunos.common.adm".to_owned(),
        3 => format!("riscos.g{}.adm", n % GROUPS),
        _ => "sun4.sunos.common.adm".to_owned(),
    };
    Ok(format!("{domain}:/etc/f{}", n / 2).parse()?)
}
