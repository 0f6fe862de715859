//! `true` on the hosts of a laboratory, by Barid and by the tools that people use today.
//!
//! Each tool runs at the root, in its usual form and as it does best: enough in parallel for all
//! hosts at once, a cheap key exchange, and where it can, connections that stay open. The time is
//! that of the whole program, from its start to its end. The limit is one round trip.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use simulations::lab::Lab;
use simulations::wan::Profile;

use crate::fleet::Bench;
use crate::machine::timed;
use crate::site::{Crossed, OURS, Options, Tools, ratio, spread};
use crate::ssh::{self, Ssh};
use crate::table;

/// Runs before it counts, for whatever keeps something open.
const WARM: usize = 2;

/// Measures each profile in a laboratory of its own.
pub(crate) fn measure(barid: &Path, options: &Options) -> Result<()> {
    for profile in &options.profiles {
        let Some(lab) = options.lab()? else { return Ok(()) };
        one(barid, &lab, profile, options)?;
    }
    Ok(())
}

/// One line of the table before it is known how Barid did.
struct Row {
    what: String,
    tcp: String,
    times: Vec<Option<Duration>>,
    crossed: [String; 3],
}

fn one(barid: &Path, lab: &Lab, name: &str, options: &Options) -> Result<()> {
    let profile = Profile::named(name)?;
    let hosts = options.sites * options.hosts;
    eprintln!("run on {hosts} hosts, {name}");
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    match by_barid(barid, lab, &profile, options) {
        Ok(ours) => rows.extend(ours),
        Err(why) => skipped.push(format!("barid: {why:#}")),
    }
    if options.alone {
        skipped.push("the peers, as was asked".to_owned());
    } else if ssh::is_here() {
        lab.reshape(&Profile::named("lan")?)?;
        let ssh = Ssh::start(lab)?;
        lab.reshape(&profile)?;
        let tools = Tools::new(lab, &ssh)?;
        for control in options.controls() {
            lab.pin_tcp(control)?;
            for peer in peers(&tools, hosts).into_iter().filter(|peer| options.wants(peer.what)) {
                eprintln!("  {} on {control}", peer.what);
                match peer.measure(lab, control, options) {
                    Ok(row) => {
                        eprintln!("    {:.1?}", row.times.iter().flatten().collect::<Vec<_>>());
                        rows.push(row);
                    }
                    Err(why) => skipped.push(format!("{} on {control}: {why:#}", peer.what)),
                }
            }
        }
    } else {
        skipped.push("every peer needs an sshd, and OpenSSH is not installed here".into());
    }
    show(name, &profile, hosts, &rows, options);
    skipped.dedup();
    if !skipped.is_empty() {
        println!("\nSkipped: {}.", skipped.join("; "));
    }
    Ok(())
}

fn show(name: &str, profile: &Profile, hosts: usize, rows: &[Row], options: &Options) {
    let limit = profile.round_trip();
    let ours =
        rows.iter().find(|row| row.tcp == OURS).and_then(|row| spread(&row.times, options.limit).0);
    let cells = rows.iter().map(|row| {
        let (median, times) = spread(&row.times, options.limit);
        let mut cells = vec![row.what.clone(), row.tcp.clone()];
        cells.extend(times);
        cells.push(table::time(limit));
        cells.push(ratio(median, Some(limit)));
        cells.push(ratio(median, ours));
        cells.extend(row.crossed.clone());
        cells
    });
    let title = format!("`true` on {hosts} hosts in {} sites, link {name}", options.sites);
    table::heading(&title);
    let head = [
        "what",
        "TCP",
        "runs",
        "min",
        "median",
        "max",
        "limit: one RTT",
        "/ limit",
        "/ barid",
        "down a site, all runs",
        "up",
        "queue drops",
    ];
    table::print(&head, &cells.collect::<Vec<_>>());
}

fn by_barid(barid: &Path, lab: &Lab, profile: &Profile, options: &Options) -> Result<Vec<Row>> {
    let mut bench = Bench::in_lab(barid, lab)?;
    lab.reshape(profile)?;
    bench.renew_uplinks(options.sites)?;
    let hosts = options.sites * options.hosts;
    for _ in 0..WARM {
        bench.run_true()?;
    }
    let by_cli = |bench: &mut Bench| {
        let output = bench.fleet.barid(&["run", "-a", "-b", "--", "true"])?;
        ensure!(output.status.success(), "barid run: {}", tests::show(&output.stderr));
        Ok(())
    };
    let by_api = |bench: &mut Bench| {
        let order = bench.run_true()?;
        ensure!(order["states"]["ok"] == hosts, "not all is well: {order:#}");
        Ok(())
    };
    type Way<'a> = &'a dyn Fn(&mut Bench) -> Result<()>;
    let ways: [(&str, Way); 2] =
        [("barid run -a -b -- true", &by_cli), ("barid, over the API", &by_api)];
    let rows = ways.map(|(what, work)| {
        let before = Crossed::now(lab);
        let times = (0..options.repeats).map(|_| Ok(Some(timed(|| work(&mut bench))?.0)));
        let times = times.collect::<Result<Vec<_>>>()?;
        let crossed = before.cells(lab);
        Ok(Row { what: what.into(), tcp: OURS.into(), times, crossed })
    });
    rows.into_iter().collect()
}

/// A tool and how it is called.
struct Peer {
    what: &'static str,
    program: &'static str,
    script: String,
    env: Vec<(&'static str, String)>,
    /// Something stays open between two calls.
    keeps: bool,
}

fn peers(tools: &Tools, hosts: usize) -> Vec<Peer> {
    let (set, config, kept) = (&tools.set, tools.config.display(), tools.kept.display());
    let (topology, inventory) = (tools.topology.display(), tools.inventory.display());
    let pdsh = |config: String| vec![("PDSH_SSH_ARGS_APPEND", format!("-F {config}"))];
    let pdsh_script = format!("pdsh -R ssh -S -f {hosts} -w {set} true");
    let clush = format!("clush -S -b -f {hosts} -w {set} -o '-F {config}'");
    let at = tools.inventory.with_file_name("ansible");
    let ansible = vec![
        ("ANSIBLE_SSH_ARGS", format!("-F {kept}")),
        ("ANSIBLE_PIPELINING", "True".into()),
        ("ANSIBLE_HOME", at.display().to_string()),
        ("ANSIBLE_LOCAL_TEMP", at.join("local").display().to_string()),
        ("ANSIBLE_REMOTE_TMP", at.join("remote").display().to_string()),
    ];
    let peer = |what, program, script, env, keeps| Peer { what, program, script, env, keeps };
    vec![
        peer("pdsh", "pdsh", pdsh_script.clone(), pdsh(config.to_string()), false),
        peer("pdsh, connections kept", "pdsh", pdsh_script, pdsh(kept.to_string()), true),
        peer("clush, flat", "clush", format!("{clush} true"), Vec::new(), false),
        peer(
            "clush, tree",
            "clush",
            format!("{clush} --topology={topology} true"),
            Vec::new(),
            false,
        ),
        peer(
            "ansible ad hoc, pipelining, connections kept",
            "ansible",
            format!("ansible all -i {inventory} -f {hosts} -m command -a true"),
            ansible,
            true,
        ),
    ]
}

impl Peer {
    fn measure(&self, lab: &Lab, control: &str, options: &Options) -> Result<Row> {
        ensure!(ssh::is_program(self.program), "{} is not installed here", self.program);
        let call = || ssh::script(lab, &self.script, &self.env, options.limit);
        for _ in 0..if self.keeps { WARM } else { 0 } {
            call()?;
        }
        let before = Crossed::now(lab);
        let times = (0..options.repeats).map(|_| call()).collect::<Result<Vec<_>>>()?;
        let crossed = before.cells(lab);
        Ok(Row { what: self.what.into(), tcp: control.into(), times, crossed })
    }
}
