//! `barid events`: what happens in the fleet, a line for what is alike, and on as it comes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use controller::types::{EventInfo, Status};

use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::{millis, parse_duration, show_count, show_time};

const EXAMPLES: &str = "\
Examples:
  barid events                              the last hour
  barid events -f --severity warning        and what comes, unless it is only good to know
  barid events --since 1d run.failed        failed runs of a day
  barid events '*.lost' --site lyon         links lost at a site
  barid events --after 4711 --json          on from a cursor, for programs";

/// How much of a set of hosts a line shows.
const SET_WIDTH: usize = 40;

/// Options of `barid events`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this subject and what is below it; `*` is any word
    #[arg(value_name = "SUBJECT")]
    subject: Option<String>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only what was heard of in this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h")]
    since: Duration,
    /// Only what comes after this cursor
    #[arg(long, value_name = "CURSOR", conflicts_with = "since")]
    after: Option<u64>,
    /// Only what somebody at this site has noticed
    #[arg(long, value_name = "SITE")]
    site: Option<String>,
    /// Only what is at least as bad
    #[arg(long, value_enum, value_name = "SEVERITY")]
    severity: Option<Least>,
}

/// The least severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Least {
    Info,
    Warning,
    Error,
}

/// Shows events.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let since_ms = ago(args.since);
    let mut path = match args.after {
        Some(after) => format!("/v1/events?after={after}"),
        None => format!("/v1/events?since_ms={since_ms}"),
    };
    if let Some(subject) = &args.subject {
        path += &format!("&subject={}", plain(subject)?);
    }
    if let Some(site) = &args.site {
        path += &format!("&site={}", plain(site)?);
    }
    if let Some(least) = args.severity {
        let word = match least {
            Least::Info => "info",
            Least::Warning => "warning",
            Least::Error => "error",
        };
        path += &format!("&severity={word}");
    }
    if args.follow {
        path += "&follow=true";
    }
    if args.after.is_none() && !screen.json {
        let status: Status = client.get("/v1/status").await?;
        if status.events_retired > 0 && status.events_retired_until_ms >= since_ms {
            let until = show_time(status.events_retired_until_ms);
            let count = show_count(status.events_retired);
            screen.warn(&format!("{count} events, up to {until}, are not kept any more"))?;
        }
    }
    let mut lines = client.get_lines::<EventInfo>(&path).await?;
    while let Some(event) = lines.next().await? {
        if screen.json {
            screen.json(&event)?;
        } else {
            screen.print(&line(&event))?;
        }
        if args.follow {
            screen.flush()?;
        }
    }
    Ok(Exit::Ok)
}

fn line(event: &EventInfo) -> String {
    let EventInfo { severity, subject, count, set, hosts, .. } = event;
    let at = show_time(event.heard_last_ms);
    let who = match set.chars().count() > SET_WIDTH {
        true => format!("{} hosts", show_count(*hosts)),
        false => set.clone(),
    };
    let times = if *count > 1 { format!(" {}x", show_count(*count)) } else { String::new() };
    let (who, text) = (escape_line(&who), escape_line(&event.line));
    format!("{at}  {severity:<7}  {subject:<16}  {who}{times}: {text}\n")
}

/// The moment that was this long ago.
pub(crate) fn ago(since: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(now.saturating_sub(since))
}

/// A word that can stand in the path of a request.
fn plain(text: &str) -> Result<&str, Failure> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.*".contains(&b);
    match text.bytes().all(is_plain) {
        true => Ok(text),
        false => Err(Failure::usage(
            format!("{text:?} is no subject and no site"),
            "for example run.failed, '*.lost', --site lyon",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_event_reaches_the_terminal_as_it_is() {
        let event = EventInfo {
            cursor: 7,
            id: String::new(),
            signature: String::new(),
            subject: "run.failed".into(),
            severity: "error".into(),
            class: "command".into(),
            line: "exit 1: \u{202e}evil \u{1b}[2J".into(),
            text: String::new(),
            node: "web1".into(),
            like: String::new(),
            order: String::new(),
            count: 1_200,
            hosts: 3,
            set: "web[1-3]".into(),
            sites: Vec::new(),
            first_ms: 0,
            last_ms: 0,
            heard_ms: 0,
            heard_last_ms: 0,
        };
        assert_eq!(
            line(&event),
            "1970-01-01T00:00:00Z  error    run.failed        web[1-3] 1,200x: exit 1: \
             \\xe2\\x80\\xaeevil \\x1b[2J\n"
        );
    }
}
