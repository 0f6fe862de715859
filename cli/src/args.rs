//! The command line: global options, the verbs, and the short form without a verb.
//!
//! Each verb's own options are in its file. `barid -w web[1-3] uptime` is `barid run -w ...`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use crate::screen::ColorWhen;
use crate::{
    alerting, attach, bus, cancel, completion, demo, events, fdist, fleet, hosts, join, laboratory,
    node, nodes, out, pull, push, report, retry, rollback, rollout, run, runs, serve, store, token,
    tree,
};

const EXAMPLES: &str = "\
Examples:
  barid run -a uptime                       every host, a line for each
  barid run -w 'web[1-9]' -b uname -r       equal answers under one header
  barid push /srv/www -w @lyon              a folder, to the same place at each host
  barid runs show last -b                   the answers again
  barid -w db1 'df -h | tail -1'            without a verb it is `run`

Exit codes:
  0 every target ok              1 a target or the request failed
  2 usage or configuration       3 none failed, some were missed
  4 stopped, the rest skipped    5 not allowed
  6 the controller cannot be reached
  7 not confirmed                10 a verification found differences
  130 cancelled                  131 detached, the order goes on";

/// Push files to thousands of hosts, run commands on them, through any number of relays.
#[derive(Debug, Parser)]
#[command(name = "barid", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// The controller's socket [default: /run/barid/barid.sock, else
    /// ~/.local/state/barid/controller/barid.sock]
    #[arg(long, global = true, value_name = "PATH", env = "BARID_SOCKET", hide_env_values = true)]
    #[arg(help_heading = "Global options")]
    pub(crate) socket: Option<PathBuf>,
    /// Output for programs: one JSON document, or one JSON object per line; errors likewise
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    #[arg(help_heading = "Global options")]
    pub(crate) color: ColorWhen,
    /// Say more; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a command on hosts
    Run(Box<run::Args>),
    /// Push a file or folder to hosts
    Push(push::Args),
    /// Collect a file or folder from hosts into a folder here
    Pull(pull::Args),
    /// Go back to what hosts had before a push
    Rollback(rollback::Args),
    /// Show what goes out in waves; pause it, let it go on, end it
    Rollout(rollout::Args),
    /// List past and present runs and pushes, or show one
    Runs(runs::Args),
    /// Fetch in full what a run has written, from the hosts that keep it
    Out(out::Args),
    /// Watch a run or push that goes on
    Attach(attach::Args),
    /// Give a run again where it did not work
    Retry(retry::Args),
    /// Take a run or push back, everywhere
    Cancel(cancel::Args),
    /// Show what happens in the fleet, folded, and follow it
    Events(events::Args),
    /// Publish, subscribe, ask and answer, by the node of this machine
    Bus(bus::Args),
    /// Report errors: each distinct problem once, with its hosts and probable cause
    Report(report::Args),
    /// List relays and hosts
    Hosts(hosts::Args),
    /// Fold, expand and count sets of hosts, list groups
    Nodes(nodes::Args),
    /// Show how the hosts are connected
    Tree(tree::Args),
    /// Make, show and compare domains: who hosts are, for what they get
    Domain(fleet::verbs::DomainArgs),
    /// Say in which domains hosts are
    Host(fleet::verbs::HostArgs),
    /// Keep files under control: install, edit, history, who still lacks what
    File(fleet::verbs::FileArgs),
    /// The same by the commands of fdist: fdist -o COMMAND
    Fdist(fdist::Args),
    /// Make, list and revoke the tokens by which hosts join
    Token(token::Args),
    /// Show what is wrong, take it upon yourself, or let nobody be told for a while
    Alerts(alerting::Args),
    /// How full a content store is, whether it is undamaged, and making it smaller
    Store(store::Args),
    /// Enrol this machine as a relay or host
    Join(join::Args),
    /// Be a relay or host, as this machine's certificate says
    Node(node::Args),
    /// Be the controller; make backups of it, and a controller out of one
    Controller(serve::Args),
    /// Start a fleet on this machine and watch it do the main job
    Demo(demo::DemoArgs),
    /// Try the mesh in bad weather, in virtual time (for developers)
    Sim(laboratory::Args),
    /// Measure it, beside other tools where they are there (for developers)
    Bench(laboratory::Args),
    /// Print a completion script
    Completion(completion::Args),
}

/// Puts `run` in where somebody began with the options of `run`, as pdsh and clush do.
pub(crate) fn with_verb(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.first().is_some_and(|program| fdist::is_named(program)) {
        args.insert(1, "fdist".into());
        return args;
    }
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        match arg {
            "--socket" | "--color" => at += 2,
            "--json" | "-v" | "-vv" | "--verbose" => at += 1,
            _ if arg.starts_with("--socket=") || arg.starts_with("--color=") => at += 1,
            _ => break,
        }
    }
    if args.get(at).is_some_and(|arg| begins_a_run(arg)) {
        args.insert(at, "run".into());
    }
    args
}

/// Whether this is an option of `run`. Those of every verb were left behind before.
fn begins_a_run(arg: &OsStr) -> bool {
    let Some(text) = arg.to_str().filter(|text| text.starts_with('-')) else { return false };
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("there is such a verb");
    if let Some(long) = text.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or_default();
        return run.get_arguments().any(|option| option.get_long() == Some(name));
    }
    let letter = text.chars().nth(1);
    letter.is_some() && run.get_arguments().any(|option| option.get_short() == letter)
}

/// Whether output for programs is wanted, for errors that come before the options are read.
pub(crate) fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        let args = std::iter::once("barid").chain(line.iter().copied()).map(OsString::from);
        Cli::try_parse_from(with_verb(args))
    }

    #[track_caller]
    fn run(line: &[&str]) -> run::Args {
        match parse(line).expect("it parses").verb {
            Verb::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_begins_with_the_first_word() {
        let check = |line: &[&str], command: &[&str]| assert_eq!(run(line).command, command);
        check(&["run", "-w", "a", "--", "-x"], &["-x"]);
        check(&["run", "-w", "a", "uname", "-r"], &["uname", "-r"]);
        check(&["run", "-w", "a", "uname", "-b", "--json"], &["uname", "-b", "--json"]);
        check(&["run", "-w", "a", "--", "ls", "--", "x"], &["ls", "--", "x"]);
        check(&["run", "-w", "a", "ls", "--", "x"], &["ls", "--", "x"]);
        check(&["run", "-a", "--plan"], &[]);
        assert!(parse(&["run", "-w", "a"]).is_err(), "a command is needed");
        assert!(parse(&["run", "-w", "a", "-Z", "x"]).is_err(), "an unknown option is an error");
    }

    #[test]
    fn options_of_run() {
        let args =
            run(&["run", "-w", "a[1-2],b", "-w", "c", "-x", "b", "-g", "l,p", "-bu", "60", "x"]);
        assert_eq!(args.targets.sets, ["a[1-2],b", "c"]);
        assert_eq!(args.targets.except, ["b"]);
        assert_eq!(args.targets.groups, ["l", "p"]);
        assert!(args.view.gather && !args.view.merge);
        assert_eq!(args.timeout.as_secs(), 60);
        assert!(run(&["run", "-bL", "-a", "x"]).view.lines);
        assert!(parse(&["run", "-a", "-u", "0", "x"]).is_err());
        assert!(parse(&["run", "-a", "--env", "novalue", "x"]).is_err());
    }

    #[test]
    fn run_may_be_left_out() {
        assert_eq!(run(&["-w", "a", "-b", "uname", "-r"]).command, ["uname", "-r"]);
        assert_eq!(run(&["--json", "--socket", "s", "-a", "x"]).command, ["x"]);
        assert_eq!(run(&["-wa", "x"]).targets.sets, ["a"]);
        assert_eq!(run(&["--hostfile=f", "x"]).targets.hostfile, ["f"]);
        assert_eq!(run(&["--shell", "-a", "x"]).command, ["x"]);
        assert!(parse(&["-C", "-a", "x"]).is_err() && parse(&["--nonsense", "x"]).is_err());
        assert!(matches!(parse(&["hosts"]).expect("a verb").verb, Verb::Hosts(_)));
        assert!(matches!(parse(&["-v", "hosts"]).expect("a verb").verb, Verb::Hosts(_)));
        assert!(parse(&["--help"]).is_err() && parse(&["-V"]).is_err());
    }

    #[test]
    fn global_options_go_anywhere_before_the_command() {
        assert!(parse(&["run", "--json", "-a", "x"]).expect("it parses").global.json);
        assert!(!parse(&["run", "-a", "x", "--json"]).expect("it parses").global.json);
        let args = ["barid", "run", "-a", "--", "--json"].map(OsString::from);
        assert!(!wants_json(&args));
    }

    #[test]
    fn other_verbs_parse() {
        for line in [
            &["push", "/srv/www", "-w", "a", "--exclude", ".git", "--hold", "2h"][..],
            &["push", "/srv/www", "-a", "--delete", "--max-delete", "5%"],
            &["push", "/srv/www", "-a", "--delete=installed", "--verify"],
            &["push", "/srv/www", "-a", "--tree", "--before", "true", "--after", "echo $FILES"],
            &["push", "/srv/www", "-a", "--special", "*.conf=echo $FILE", "--savetargets", ".OLD"],
            &["push", "/srv/www", "-a", "--compare", "--younger", "--numeric-ids"],
            &["rollback", "last"],
            &["store", "check"],
            &["store", "gc", "--state", "/var/lib/barid"],
            &["rollback", "--dest", "/srv/www", "-w", "a"],
            &["push", "/srv/www", "-a", "--waves", "@canary,5%,100%", "--gate", "errors<=1%"],
            &["push", "/srv/www", "-a", "--all-at-once"],
            &["push", "/srv/www", "-a", "--stage", "--hold", "3d"],
            &["push", "/srv/www", "-a", "--stage", "--waves", "1,100%"],
            &["push", "--start", "last", "--waves", "1,100%"],
            &["push", "--start", "7k3q2a", "-w", "a", "--async"],
            &["rollout"],
            &["rollout", "resume", "last", "--accept", "--gate", "ok>=50%"],
            &["runs"],
            &["runs", "--limit", "5"],
            &["runs", "show", "last", "-B"],
            &["out", "last", "-w", "a[1-2]", "--stderr", "--outdir", "d"],
            &["attach"],
            &["attach", "7k3q", "-b"],
            &["cancel", "last", "-t", "1m", "--async"],
            &["retry", "last", "--state", "missed,timeout", "-b", "-t", "1m", "-u", "2h"],
            &["run", "-a", "-f", "3", "-k", "-l", "nobody", "--umask", "027", "x"],
            &["run", "-a", "--batch", "10%", "--batch-wait", "5s", "--retry", "2:1s", "x"],
            &["-f", "3", "-a", "x"],
            &["token", "create", "--role", "host", "--ttl", "30m"],
            &["token", "list", "--json"],
            &["alerts"],
            &["alerts", "ls", "--all"],
            &["alerts", "ack", "3fa2", "--note", "on it"],
            &["alerts", "silence", "-w", "a", "--for", "2h", "--reason", "works"],
            &["alerts", "test", "ops", "--state", "/s"],
            &["token", "revoke", "abc"],
            &["controller", "--state", "/s", "--listen", "127.0.0.1:0"],
            &["controller", "backup", "/b", "--keep", "3"],
            &["controller", "restore", "/b", "--state", "/s", "--name", "20261126T194500.000Z"],
            &["controller", "show", "--json"],
            &["node", "--state", "/s", "--join", "-", "--name", "n", "--parent", "a:1"],
            &["join", "--state", "/s", "--parent", "a:1", "--token", "-"],
            &["tree"],
            &["tree", "delegate", "r1", "--for", "7d", "--kinds", "run", "-w", "@lyon", "-t", "5s"],
            &["tree", "delegate", "r1", "--revoke"],
            &["tree", "delegate", "--json"],
            &["hosts", "-g", "lyon", "-X", "gpu", "--limit", "@up", "--pick", "5%", "--seed", "7"],
            &["hosts", "label", "-w", "a[1-2]", "os=debian", "gpu-"],
            &["nodes", "fold", "-r", "-s", "racks", "a1", "a2"],
            &["nodes", "expand", "-S", ",", "a[1-2]!a1"],
            &["nodes", "count", "-"],
            &["nodes", "groups", "--json", "-a"],
            &["events", "-f", "--since", "2h", "--site", "lyon", "--severity", "error", "run.*"],
            &["bus", "pub", "a.b", "text"],
            &["bus", "sub", "a.>", "b.*", "--count", "3", "--node", "/s"],
            &["bus", "req", "a.b", "--most", "9", "--deadline", "2s"],
            &["report", "errors", "--since", "1d"],
            &["report", "hour", "8"],
            &["report", "day", "-1"],
            &["report", "filter", "show", "day"],
            &["report", "filter", "set", "delete", "-"],
            &["completion", "zsh"],
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        }
        assert!(parse(&["controller"]).is_err(), "where?");
        assert!(parse(&["controller", "restore", "/b"]).is_err(), "to where?");
        assert!(parse(&["token", "create", "--role", "king"]).is_err());
        assert!(parse(&["cancel"]).is_err(), "what is taken back must be named");
        assert!(parse(&["hosts", "-a", "--seed", "7"]).is_err(), "a seed of what?");
        assert!(parse(&["push", "/x", "--dest", "y", "-a", "--hold", "0"]).is_err());
        assert!(parse(&["push", "/x", "-a", "--max-delete", "5"]).is_err(), "nothing is deleted");
        assert!(parse(&["push", "-a"]).is_err(), "what?");
        assert!(parse(&["push", "/x", "--start", "last"]).is_err(), "it was read before");
        assert!(parse(&["push", "/x", "-a", "--stage", "--verify"]).is_err());
        assert!(parse(&["push", "/x", "-a", "--delete=some"]).is_err());
        assert!(parse(&["push", "/x", "-a", "--delete", "--tree"]).is_err());
        assert!(parse(&["push", "/x", "-a", "--special", "echo"]).is_err());
        assert!(
            parse(&["rollback"]).is_err() && parse(&["rollback", "x", "--dest", "/x"]).is_err()
        );
    }
}
