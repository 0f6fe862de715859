//! `barid bus`: publish, subscribe, ask and answer by the socket of the node on this machine.

mod kept;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use bus::{AnswerLine, BusError, Client, Line, decode_data};
use bytes::Bytes;
use clap::Subcommand;

use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::parse_some_duration;

const EXAMPLES: &str = "\
Examples:
  barid bus sub 'app.*.state'               what is published there, as it comes
  barid bus pub app.web.state up            to whoever wants it, anywhere in the tree
  barid bus req app.ask 'who is there' --most 100 --deadline 2s
  barid bus answer 17.4711 'I am'           to a message, by what it says in `request`
  barid bus sub --last 'app.*.state'        first the newest of each subject that is kept
  barid bus pub --kept audit.login root     until a node says that it has it on disk
  barid bus read 'audit.>' --as indexer     a stream that is kept, each message at least once
  barid bus take 'jobs.>'                   of a queue, what nobody else has";

/// Where the node's socket is, as a rule.
const PLACES: [&str; 3] =
    ["/run/barid/bus.sock", "/run/barid/node.sock", "/var/lib/barid/node.sock"];

/// The socket of the node on this machine, if another is not named.
pub(crate) fn socket(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| {
        let mut places = PLACES.iter().map(PathBuf::from);
        places.find(|path| path.exists()).unwrap_or_else(|| PLACES[0].into())
    })
}

/// Options of `barid bus`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The node's socket [default: /run/barid/bus.sock, /run/barid/node.sock or
    /// /var/lib/barid/node.sock, the first that is there]
    #[arg(long, global = true, value_name = "PATH", env = "BARID_BUS", hide_env_values = true)]
    node: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Publish a message
    Pub {
        /// What it is about: words between full stops
        subject: String,
        /// What it says; without it, standard input to its end
        data: Option<String>,
        /// Wait until a node that keeps such messages says that it has it on disk
        #[arg(long)]
        kept: bool,
        /// How long to wait for that
        #[arg(long, value_name = "TIME", value_parser = parse_some_duration, default_value = "5s",
              requires = "kept")]
        deadline: Duration,
    },
    /// Show what is published, as it comes
    Sub {
        /// Subjects; `*` is any word, `>` at the end all that follow
        #[arg(required = true, value_name = "PATTERN")]
        patterns: Vec<String>,
        /// End after so many messages
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Show the newest message of each subject first, where it is kept
        #[arg(long)]
        last: bool,
    },
    /// Publish a message and show the answers
    Req {
        /// What it is about
        subject: String,
        /// What it says; without it, standard input to its end
        data: Option<String>,
        /// How long to wait
        #[arg(long, value_name = "TIME", value_parser = parse_some_duration, default_value = "5s")]
        deadline: Duration,
        /// For how many answers
        #[arg(long, value_name = "N", default_value_t = 1)]
        most: u64,
    },
    /// Answer a message
    Answer {
        /// What the message says in `request`
        request: String,
        /// What to say; without it, standard input to its end
        data: Option<String>,
    },
    #[command(flatten)]
    Kept(kept::Verb),
}

/// Speaks on the bus.
pub(crate) async fn main(args: Args, screen: &mut Screen) -> Result<Exit, Failure> {
    let client = Client::new(socket(args.node));
    match args.verb {
        Verb::Pub { subject, data, kept: true, deadline } => {
            let place = client.publish_kept(&subject, body(data)?, deadline).await;
            let place = place.map_err(failure)?;
            if screen.json {
                screen.json(&bus::Heard { heard: true, kept: Some(place) })?;
            }
            Ok(Exit::Ok)
        }
        Verb::Pub { subject, data, .. } => {
            let heard = client.publish(&subject, body(data)?).await.map_err(failure)?;
            if screen.json {
                screen.json(&bus::Heard { heard, kept: None })?;
            } else if !heard {
                screen.warn(&format!("nobody wants {subject} now"))?;
            }
            Ok(Exit::Ok)
        }
        Verb::Sub { patterns, count, last } => {
            subscribe(&client, &patterns, (count, last), screen).await
        }
        Verb::Req { subject, data, deadline, most } => {
            let answers = client.ask(&subject, body(data)?, deadline, most).await;
            show_answers(answers.map_err(failure)?, most, screen).await
        }
        Verb::Answer { request, data } => {
            client.answer(&request, body(data)?).await.map_err(failure)?;
            Ok(Exit::Ok)
        }
        Verb::Kept(verb) => kept::main(verb, &client, screen).await,
    }
}

async fn subscribe(
    client: &Client,
    patterns: &[String],
    (count, last): (Option<u64>, bool),
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let messages = match last {
        true => client.subscribe_last(&patterns).await,
        false => client.subscribe(&patterns).await,
    };
    let mut messages = messages.map_err(failure)?;
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0
        && let Some(line) = messages.next().await.map_err(failure)?
    {
        left -= u64::from(matches!(line, Line::Message(_)));
        match line {
            line if screen.json => screen.json(&line)?,
            Line::Ready(_) => {}
            Line::Message(message) => show_message(&message, screen)?,
            Line::Fault(fault) => return Err(failure(BusError::Refused(fault))),
            Line::Missed(missed) => {
                screen.warn(&format!("{missed} messages were missed: they came too fast"))?;
            }
        }
        screen.flush()?;
    }
    match left {
        0 => Ok(Exit::Ok),
        _ if count.is_none() => Ok(Exit::Ok),
        left => {
            let message = format!("the node has stopped, {left} messages before the end");
            Err(Failure::new(Exit::Failed, "stopped", message))
        }
    }
}

fn show_message(message: &bus::Message, screen: &mut Screen) -> Result<(), Failure> {
    let data = text(&message.data, message.binary);
    let (subject, node) = (escape_line(&message.subject), escape_line(&message.node));
    let asks = message.request.as_ref().map_or(String::new(), |asks| format!(" [{asks}]"));
    Ok(screen.print(&format!("{subject}  {node}{asks}: {data}\n"))?)
}

async fn show_answers(
    mut answers: bus::Answers,
    most: u64,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let mut count = 0;
    while let Some(line) = answers.next().await.map_err(failure)? {
        match line {
            line if screen.json => {
                count += u64::from(matches!(line, AnswerLine::Answer(_)));
                screen.json(&line)?;
            }
            AnswerLine::Answer(answer) => {
                count += 1;
                let data = text(&answer.data, answer.binary);
                screen.print(&format!("{}: {data}\n", escape_line(&answer.node)))?;
            }
            AnswerLine::End(end) if count == 0 || most == 1 && count < most => {
                let why = match end.why {
                    bus::Why::Nobody => "nobody wants such messages now",
                    bus::Why::Deadline => "no answer in time",
                    bus::Why::Enough | bus::Why::Stopped => "the node has stopped",
                };
                screen.warn(why)?;
            }
            AnswerLine::End(_) => {}
        }
        screen.flush()?;
    }
    Ok(if count > 0 { Exit::Ok } else { Exit::Missed })
}

/// A body as a terminal may show it.
fn text(data: &str, binary: bool) -> String {
    match decode_data(data, binary) {
        Some(bytes) if binary => format!("{} bytes that are no text", bytes.len()),
        _ => escape_line(data.trim_end_matches('\n')).into_owned(),
    }
}

fn body(data: Option<String>) -> Result<Bytes, Failure> {
    match data {
        Some(data) => Ok(data.into()),
        None => {
            let mut bytes = Vec::new();
            // One more than a message may have, so that a longer one is refused and not cut.
            let limit = mesh::bus::BUS_BYTES as u64 + 1;
            let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
            read.map_err(|error| Failure::local(&error))?;
            Ok(bytes.into())
        }
    }
}

pub(crate) fn failure(error: BusError) -> Failure {
    let text = relay::chain(&error);
    match error {
        BusError::Socket { .. } => Failure::new(Exit::Unreachable, "no-node", text)
            .with_help("does the node run? --node names its socket"),
        BusError::Refused(fault) => {
            let exit = match fault.code.as_str() {
                "denied" => Exit::Denied,
                "away" => Exit::Unreachable,
                "full" | "unknown" | "not-kept" | "over" | "disk" | "unsure" => Exit::Failed,
                _ => Exit::Usage,
            };
            let failure = Failure::new(exit, "refused", fault.message);
            if fault.help.is_empty() { failure } else { failure.with_help(fault.help) }
        }
        BusError::Broken(_) | BusError::Answer(_) => {
            Failure::new(Exit::Failed, "connection-lost", text)
        }
    }
}
