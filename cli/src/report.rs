//! `barid report`: what went wrong, each distinct problem once, and the filters of reports.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use controller::report::Style;
use controller::types::{Filter, Report};

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
  barid report day -w @domain:cc.adm   of the hosts of a domain
  barid report hour --by site          in parts, one for each site
  barid report filter set day FILE     what of it can wait for the daily report";

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
        #[command(flatten)]
        parts: Parts,
    },
    /// The report of an hour: what is urgent
    Hour {
        /// The hour (0 to 23), or how many hours back (-1); none: the present one
        #[arg(value_name = "TIME", allow_negative_numbers = true)]
        time: Option<i64>,
        #[command(flatten)]
        parts: Parts,
    },
    /// The report of a day
    Day {
        /// The day of the month (1 to 31), or how many days back (-1); none: today
        #[arg(value_name = "TIME", allow_negative_numbers = true)]
        time: Option<i64>,
        #[command(flatten)]
        parts: Parts,
    },
    /// Show or set the expressions by which errors are discarded or left to the daily report
    Filter {
        #[command(subcommand)]
        verb: FilterVerb,
    },
}

/// Whose errors, and how they are put together.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Parts {
    /// Only what hosts of this set had
    #[arg(short = 'w', long = "where", value_name = "SET", allow_hyphen_values = true)]
    set: Option<String>,
    /// In parts, each with the counts of its hosts
    #[arg(long, value_name = "WHAT")]
    by: Option<By>,
}

/// By what a report has parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// The sites of hosts
    Site,
    /// Their full domains
    Domain,
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
    let (kind, query, parts) = match args.verb {
        Verb::Filter { verb } => return filter(verb, client, screen).await,
        Verb::Errors { since, parts } => {
            ("errors", vec![("since_ms", ago(since).to_string())], parts)
        }
        Verb::Hour { time, parts } => ("hour", timed(time), parts),
        Verb::Day { time, parts } => ("day", timed(time), parts),
    };
    show(kind, query, parts, client, screen).await
}

fn timed(time: Option<i64>) -> Vec<(&'static str, String)> {
    time.map(|time| ("time", time.to_string())).into_iter().collect()
}

/// Shows the report of an hour or a day.
pub(crate) async fn of(
    kind: &str,
    time: Option<i64>,
    parts: Parts,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    show(kind, timed(time), parts, client, screen).await
}

async fn show(
    kind: &str,
    mut query: Vec<(&str, String)>,
    Parts { set, by }: Parts,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    query.extend(set.map(|set| ("set", set)));
    query.extend(by.map(|by| {
        let by = if by == By::Site { "site" } else { "domain" };
        ("by", by.to_owned())
    }));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let report: Report = client.get(&format!("/v1/reports/{kind}?{query}")).await?;
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

/// A report as a terminal shows it.
fn text(report: &Report) -> String {
    let escape = |text: &str| escape_line(text).into_owned();
    controller::report::text(report, &Style { escape, time: show_time, count: show_count })
}

#[cfg(test)]
mod tests {
    use controller::types::{Problem, ReportPart};

    use super::*;

    #[test]
    fn a_report_for_people() {
        let names: Vec<String> = (1..=20).map(|n| format!("web{n}")).collect();
        let problem = Problem {
            signature: "aa".into(),
            subject: "run.failed".into(),
            severity: "error".into(),
            class: "space".into(),
            path: String::new(),
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
        let file = Problem {
            subject: "dist.missed".into(),
            class: "down".into(),
            path: "cc.adm:/etc/motd".into(),
            line: "not reached".into(),
            count: 1,
            hosts: 1,
            set: "h2".into(),
            last_ms: 3_600_000,
            ..long.clone()
        };
        let part = ReportPart {
            name: "lyon".into(),
            problems: vec![file.clone()],
            resolved: vec![file.clone()],
        };
        let mut report = Report {
            kind: "hour".into(),
            start_ms: 3_600_000,
            end_ms: 7_200_000,
            title: "1970-01-01 01:00 to 02:00".into(),
            is_over: false,
            problems: vec![file, problem.clone(), long],
            resolved: vec![problem],
            parts: Vec::new(),
            discarded: 4,
            daily: 2,
            reached: 5,
            updated: Some(12),
            is_partial: false,
        };
        let expected = "\
errors of the hour 1970-01-01 01:00 to 02:00, so far

cc.adm:/etc/motd
  known  dist.missed (abcdef)  h2, once, 1970-01-01T01:00:00Z
         client down: not reached

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

3 problems, 605 events, 2 left to the daily report, 4 discarded
5 hosts reached by distributions, 12 files updated
";
        assert_eq!(text(&report), expected);
        report.parts.push(part);
        let expected = "\
errors of the hour 1970-01-01 01:00 to 02:00, so far

== lyon ==

cc.adm:/etc/motd
  known  dist.missed (abcdef)  h2, once, 1970-01-01T01:00:00Z
         client down: not reached

not seen any more
  dist.missed: cc.adm:/etc/motd: not reached (last 1970-01-01T01:00:00Z)

3 problems, 605 events, 2 left to the daily report, 4 discarded
5 hosts reached by distributions, 12 files updated
";
        assert_eq!(text(&report), expected);
    }
}
