//! `true` and `uname -a` on loopback, by Barid and by the tools that people use today.
//!
//! The tools go through a real sshd that answers at every address of 127.0.0.0/8, so that each
//! host costs what it costs anywhere: a handshake, an account, a shell. Barid's hosts are real
//! processes with their own certificates and disks. Everything shares this machine, and nothing
//! else does while it is measured: when the tools run, Barid does not.
//!
//! Each tool is given what suits it: a cheap key exchange, connections that stay open where it can,
//! and a fan-out for all hosts at once or, if that is faster, for 64.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::fleet::Bench;
use crate::machine::timed;
use crate::site::spread;
use crate::ssh::{self, Ssh};
use crate::table;

const RELAYS: usize = 3;
/// Hosts of one network of 127.77.x.0.
const NETWORK: usize = 250;
/// The smaller fan-out: about what a machine of few cores is quickest with.
const FAN_OUT: usize = 64;
const COMMANDS: [&str; 2] = ["true", "uname -a"];
/// From so many hosts on the tools run once.
const MANY: usize = 300;
const WARM: usize = 2;
const BARID_RUNS: usize = 10;

/// What was measured: what, with which command, and how long each time. None: beyond the limit.
struct Row {
    what: String,
    command: &'static str,
    times: Vec<Option<Duration>>,
}

/// Measures fleets of these sizes. `alone`: without the tools.
pub(crate) fn measure(
    barid: &Path,
    work: &Path,
    sizes: &[usize],
    alone: bool,
    limit: Duration,
) -> Result<()> {
    for hosts in sizes {
        let mut rows = by_barid(barid, *hosts)?;
        let mut skipped = Vec::new();
        match alone {
            true => skipped.push("the tools, as was asked".to_owned()),
            false => by_tools(work, *hosts, limit, &mut rows, &mut skipped)?,
        }
        show(*hosts, &rows, limit);
        if !skipped.is_empty() {
            println!("\nSkipped: {}.", skipped.join("; "));
        }
    }
    Ok(())
}

fn show(hosts: usize, rows: &[Row], limit: Duration) {
    let ours = |command| {
        let row = rows.iter().find(|row| row.command == command);
        row.and_then(|row| spread(&row.times, limit).0)
    };
    let cells = rows.iter().map(|row| {
        let (median, times) = spread(&row.times, limit);
        let mut cells = vec![row.what.clone(), format!("`{}`", row.command)];
        cells.extend(times);
        cells.push(match median {
            Some(_) => crate::site::ratio(median, ours(row.command)),
            None => format!("> {}", crate::site::ratio(Some(limit), ours(row.command))),
        });
        cells
    });
    table::heading(&format!("{hosts} hosts on this machine, over loopback"));
    let head = ["what", "command", "runs", "min", "median", "max", "/ barid"];
    table::print(&head, &cells.collect::<Vec<_>>());
}

fn by_barid(barid: &Path, hosts: usize) -> Result<Vec<Row>> {
    let behind: Vec<_> = (0..RELAYS).map(|n| (hosts + n) / RELAYS).collect();
    let (took, bench) = timed(|| Bench::start(barid, &behind))?;
    eprintln!("{hosts} hosts are up after {:.1} s", took.as_secs_f64());
    let mut rows = Vec::new();
    for command in COMMANDS {
        let call = || -> Result<()> {
            let mut args = vec!["run", "-w", "@role:host", "-b", "--"];
            args.extend(command.split(' '));
            let output = bench.fleet.barid(&args)?;
            ensure!(output.status.success(), "barid run: {}", tests::show(&output.stderr));
            Ok(())
        };
        for _ in 0..WARM {
            call()?;
        }
        let times = (0..BARID_RUNS).map(|_| Ok(Some(timed(call)?.0))).collect::<Result<_>>()?;
        rows.push(Row { what: "barid run -b, 3 relays".into(), command, times });
    }
    Ok(rows)
}

fn by_tools(
    work: &Path,
    hosts: usize,
    limit: Duration,
    rows: &mut Vec<Row>,
    skipped: &mut Vec<String>,
) -> Result<()> {
    if !ssh::is_here() || !ssh::is_program("setpriv") {
        skipped.push("every tool needs an sshd, and OpenSSH is not installed here".into());
        return Ok(());
    }
    let dir = work.join(format!("ssh-{hosts}"));
    let (ssh, _) = match ssh::serve_here(dir.clone()) {
        Ok(started) => started,
        Err(why) => {
            skipped.push(format!("every tool, since sshd does not start: {why:#}"));
            return Ok(());
        }
    };
    let runs = if hosts < MANY { 3 } else { 1 };
    for tool in tools(&ssh, &dir, hosts)? {
        if !ssh::is_program(tool.program) {
            skipped.push(format!("{}: {} is not installed here", tool.what, tool.program));
            continue;
        }
        let log = dir.join("log");
        for command in COMMANDS {
            let script = tool.script.replace("COMMAND", command);
            let call = || ssh::run(Command::new("bash"), &log, &script, &tool.env, limit);
            let measured = || -> Result<Vec<_>> {
                if tool.keeps {
                    call()?;
                }
                (0..runs).map(|_| call()).collect()
            };
            match measured() {
                Ok(times) => {
                    eprintln!("  {} {command}: {:.1?}", tool.what, times);
                    rows.push(Row { what: tool.what.clone(), command, times });
                }
                Err(why) => skipped.push(format!("{} {command}: {why:#}", tool.what)),
            }
        }
        if tool.keeps {
            ssh.hang_up(&log, limit)?;
        }
    }
    Ok(())
}

/// A tool and how it is called; `COMMAND` stands for the command.
struct Tool {
    what: String,
    program: &'static str,
    script: String,
    env: Vec<(&'static str, String)>,
    /// Connections stay open between two calls.
    keeps: bool,
}

fn tools(ssh: &Ssh, dir: &Path, hosts: usize) -> Result<Vec<Tool>> {
    let (config, kept) = (ssh.config(false), ssh.config(true));
    let (config, kept) = (config.display(), kept.display());
    let networks = (0..hosts.div_ceil(NETWORK)).map(|n| (n, NETWORK.min(hosts - n * NETWORK)));
    let folded = networks.clone().map(|(n, count)| format!("127.77.{n}.[1-{count}]"));
    let set = folded.collect::<Vec<_>>().join(",");
    let each =
        networks.flat_map(|(n, count)| (1..=count).map(move |host| format!("127.77.{n}.{host}\n")));
    let inventory = dir.join("inventory");
    let python = "ansible_python_interpreter=/usr/bin/python3";
    let each: String = each.collect();
    fs::write(&inventory, format!("[all]\n{each}[all:vars]\n{python}\n"))?;
    let inventory = inventory.display();
    let home = dir.join("ansible");
    let ansible = vec![
        ("ANSIBLE_SSH_ARGS", format!("-F {kept}")),
        ("ANSIBLE_PIPELINING", "True".into()),
        ("ANSIBLE_HOME", home.display().to_string()),
        ("ANSIBLE_LOCAL_TEMP", home.join("local").display().to_string()),
        ("ANSIBLE_REMOTE_TMP", home.join("remote").display().to_string()),
    ];
    let mut tools = Vec::new();
    let mut fans = vec![FAN_OUT.min(hosts), hosts];
    fans.dedup();
    for fan in &fans {
        let pdsh = |what: &str, config: String, keeps| Tool {
            what: format!("pdsh -f {fan}{what}"),
            program: "pdsh",
            script: format!("pdsh -R ssh -S -f {fan} -w '{set}' COMMAND"),
            env: vec![("PDSH_SSH_ARGS_APPEND", format!("-F {config}"))],
            keeps,
        };
        tools.push(pdsh("", config.to_string(), false));
        if *fan == fans[0] {
            tools.push(pdsh(", connections kept", kept.to_string(), true));
        }
        tools.push(Tool {
            what: format!("clush -b -f {fan}"),
            program: "clush",
            script: format!("clush -S -b -f {fan} -w '{set}' -o '-F {config}' COMMAND"),
            env: Vec::new(),
            keeps: false,
        });
    }
    tools.push(Tool {
        what: format!("ansible ad hoc -f {}, pipelining, connections kept", fans[0]),
        program: "ansible",
        script: format!("ansible all -i {inventory} -f {} -m command -a 'COMMAND'", fans[0]),
        env: ansible,
        keeps: true,
    });
    Ok(tools)
}
