//! `barid report`: what went wrong, each distinct problem once, and the filters of reports.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use controller::types::{Filter, Problem, Report};

use crate::client::Client;
use crate::escape::escape_line;
use crate::events::ago;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::{parse_some_duration, show_count, show_time};

const EXAMPLES: &str = "\
Examples:
  barid report errors                  what went wrong in a day
  barid report errors --since 2h
  barid report hour                    this hour so far, what is urgent
  barid report hour 8                  from 08:00 on, today or else yesterday
  barid report day -1                  yesterday
  barid report filter set day FILE     what of it can wait for the daily report";

/// How much of a set of hosts a problem shows; above this, the first names.
const SET_WIDTH: usize = 60;
/// So many names are shown of more.
const NAMES: usize = 5;

/// Options of `barid report`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// The reports.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// All errors of a while
    Errors {
        /// How long
        #[arg(long, value_name = "TIME", value_parser = parse_some_duration, default_value = "1d")]
        since: Duration,
    },
    /// The report of an hour: what is urgent
    Hour {
        /// The hour (0 to 23), or how many hours back (-1); none: the present one
        #[arg(value_name = "TIME", allow_negative_numbers = true)]
        time: Option<i64>,
    },
    /// The report of a day
    Day {
        /// The day of the month (1 to 31), or how many days back (-1); none: today
        #[arg(value_name = "TIME", allow_negative_numbers = true)]
        time: Option<i64>,
    },
    /// Show or set the expressions by which errors are discarded or left to the daily report
    Filter {
        #[command(subcommand)]
        verb: FilterVerb,
    },
}

/// What can be done with filters.
#[derive(Clone, Debug, clap::Subcommand)]
enum FilterVerb {
    /// Print a list
    Show {
        /// Which
        list: List,
    },
    /// Replace a list
    Set {
        /// Which
        list: List,
        /// The new one, an expression a line; `-` is the standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// The lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum List {
    /// What is in no report
    Delete,
    /// What can wait for the daily report
    Day,
}

impl List {
    fn path(self) -> &'static str {
        match self {
            List::Delete => "/v1/filters/delete",
            List::Day => "/v1/filters/day",
        }
    }
}

/// Shows a report, or looks after the filters.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let timed = |kind: &str, time: Option<i64>| match time {
        Some(time) => format!("/v1/reports/{kind}?time={time}"),
        None => format!("/v1/reports/{kind}"),
    };
    let path = match args.verb {
        Verb::Filter { verb } => return filter(verb, client, screen).await,
        Verb::Errors { since } => format!("/v1/reports/errors?since_ms={}", ago(since)),
        Verb::Hour { time } => timed("hour", time),
        Verb::Day { time } => timed("day", time),
    };
    let report: Report = client.get(&path).await?;
    match screen.json {
        true => screen.json(&report)?,
        false => screen.print(&text(&report))?,
    }
    Ok(Exit::Ok)
}

async fn filter(verb: FilterVerb, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let filter: Filter = match verb {
        FilterVerb::Show { list } => {
            let filter: Filter = client.get(list.path()).await?;
            if !screen.json {
                screen.print(&filter.text)?;
            }
            filter
        }
        FilterVerb::Set { list, file } => {
            let new = Filter { text: read(&file)? };
            client.put(list.path(), &new).await?
        }
    };
    if screen.json {
        screen.json(&filter)?;
    }
    Ok(Exit::Ok)
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(file).map(|read| text = read),
    };
    read.map_err(|error| {
        let message = format!("{}: the list cannot be read: {error}", file.display());
        Failure::usage(message, "a text file, an expression a line")
    })?;
    Ok(text)
}

/// A report for people.
fn text(report: &Report) -> String {
    let so_far = if report.is_over { "" } else { ", so far" };
    let mut text = match report.kind.as_str() {
        "errors" => format!("errors since {}\n", show_time(report.start_ms)),
        kind => format!("errors of the {kind} {}{so_far}\n", report.title),
    };
    if report.is_partial {
        text += "a part of it is not kept any more\n";
    }
    let mut class = "";
    for problem in &report.problems {
        if problem.class != class {
            class = &problem.class;
            text += &format!("\n{}\n", escape_line(heading(class)));
        }
        text += &entry(problem);
    }
    if report.problems.is_empty() {
        text += "\nnothing went wrong\n";
    }
    if !report.resolved.is_empty() {
        text += "\nnot seen any more\n";
        for Problem { subject, line, last_ms, .. } in &report.resolved {
            let (subject, line) = (escape_line(subject), escape_line(line));
            text += &format!("  {subject}: {line} (last {})\n", show_time(*last_ms));
        }
    }
    let events: u64 = report.problems.iter().map(|problem| problem.count).sum();
    let problems = show_count(report.problems.len() as u64);
    text += &format!("\n{problems} problems, {} events", show_count(events));
    if report.daily > 0 {
        text += &format!(", {} left to the daily report", show_count(report.daily));
    }
    if report.discarded > 0 {
        text += &format!(", {} discarded", show_count(report.discarded));
    }
    text + "\n"
}

fn heading(class: &str) -> &str {
    match class {
        "controller" => "controller in trouble",
        "relay" => "relay in trouble",
        "down" => "client down",
        "space" => "client out of space",
        "command" => "client command failed",
        "client" => "client in trouble",
        other => other,
    }
}

fn entry(problem: &Problem) -> String {
    let Problem { subject, count, hosts, set, names, is_new, .. } = problem;
    let state = if *is_new { "new  " } else { "known" };
    let hosts = show_count(*hosts);
    let who = match set.chars().count() > SET_WIDTH {
        true => {
            let first = &names[..names.len().min(NAMES)];
            format!("{hosts} hosts, of them {}", first.join(", "))
        }
        false if hosts == "1" => set.clone(),
        false => format!("{hosts} hosts, {set}"),
    };
    let times = if *count == 1 { "once".into() } else { format!("{} times", show_count(*count)) };
    let (first, last) = (show_time(problem.first_ms), show_time(problem.last_ms));
    let when = if first == last { first } else { format!("{first} to {last}") };
    let order = &problem.order;
    let order = match order.is_char_boundary(order.len().saturating_sub(6)) && order.len() > 6 {
        true => format!(" ({})", &order[order.len() - 6..]),
        false => String::new(),
    };
    let (who, line) = (escape_line(&who), escape_line(&problem.line));
    let mut text = format!("  {state}  {subject}{order}  {who}, {times}, {when}\n");
    text += &format!("         {line}\n");
    if !problem.cause.is_empty() {
        text += &format!("         probably: {}\n", escape_line(&problem.cause));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_for_people() {
        let names: Vec<String> = (1..=20).map(|n| format!("web{n}")).collect();
        let problem = Problem {
            signature: "aa".into(),
            subject: "run.failed".into(),
            severity: "error".into(),
            class: "space".into(),
            line: "exit 1: tar: No space left on device\u{1b}[2J".into(),
            text: String::new(),
            node: "web1".into(),
            cause: "a file system is full".into(),
            order: "0123456789abcdef".into(),
            count: 302,
            hosts: 300,
            set: "web[1-300]".into(),
            names,
            first_ms: 3_600_000,
            last_ms: 3_661_000,
            is_new: true,
        };
        let long = Problem {
            class: "command".into(),
            set: "a,".repeat(100),
            is_new: false,
            cause: String::new(),
            ..problem.clone()
        };
        let report = Report {
            kind: "hour".into(),
            start_ms: 3_600_000,
            end_ms: 7_200_000,
            title: "1970-01-01 01:00 to 02:00".into(),
            is_over: false,
            problems: vec![problem.clone(), long],
            resolved: vec![problem],
            discarded: 4,
            daily: 2,
            is_partial: false,
        };
        let expected = "\
errors of the hour 1970-01-01 01:00 to 02:00, so far

client out of space
  new    run.failed (abcdef)  300 hosts, web[1-300], 302 times, \
1970-01-01T01:00:00Z to 1970-01-01T01:01:01Z
         exit 1: tar: No space left on device\\x1b[2J
         probably: a file system is full

client command failed
  known  run.failed (abcdef)  300 hosts, of them web1, web2, web3, web4, web5, 302 times, \
1970-01-01T01:00:00Z to 1970-01-01T01:01:01Z
         exit 1: tar: No space left on device\\x1b[2J

not seen any more
  run.failed: exit 1: tar: No space left on device\\x1b[2J (last 1970-01-01T01:01:01Z)

2 problems, 604 events, 2 left to the daily report, 4 discarded
";
        assert_eq!(text(&report), expected);
    }
}
