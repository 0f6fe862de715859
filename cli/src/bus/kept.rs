//! `barid bus read|take|done|forget|kept`: what nodes keep of the bus.
//!
//! A message is acknowledged once it is written to standard output, so that whoever reads it there
//! loses none: after a break the last one may come twice.

use std::time::Duration;

use bus::{AllKept, BusError, Client, Holder, Line, Message, Place};
use clap::Subcommand;

use super::{failure, show_message};
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;
use crate::units::parse_some_duration;

/// How long a queue is asked at once when nothing says for how long.
const WAIT: Duration = Duration::from_secs(60);

/// Which node keeps it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct At {
    /// The node that keeps it, by its number; without it, the first that says so
    #[arg(long, value_name = "NUMBER")]
    at: Option<u32>,
}

impl At {
    fn holder(&self) -> Holder {
        self.at.map_or(Holder::Any, Holder::Node)
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Verb {
    /// Read a stream, each message at least once
    Read {
        /// Subjects of the stream
        pattern: String,
        /// Who reads: where he is in the stream is known under this name
        #[arg(long = "as", value_name = "NAME")]
        reader: String,
        /// If he is new, begin at the next message instead of the oldest
        #[arg(long)]
        new: bool,
        /// Acknowledge nothing: the same messages come again next time
        #[arg(long)]
        peek: bool,
        /// End after so many messages
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        #[command(flatten)]
        at: At,
    },
    /// Take messages of a queue, each of which nobody else gets
    Take {
        /// Subjects of the queue
        pattern: String,
        /// End after so many messages
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// End when none has come for so long
        #[arg(long, value_name = "TIME", value_parser = parse_some_duration)]
        wait: Option<Duration>,
        /// Leave it to `barid bus done` to say that a message is done
        #[arg(long)]
        hold: bool,
        #[command(flatten)]
        at: At,
    },
    /// Say that a message of a queue, which was taken with --hold, is done
    Done {
        /// Subjects of the queue
        pattern: String,
        /// The number of the message
        seq: u64,
        /// What came with it as `token`
        token: String,
        /// The number of the node that keeps it: what came with it as `by`
        #[arg(long, value_name = "NUMBER")]
        at: u32,
    },
    /// Keep nothing any more for a reader who will not come again
    Forget {
        /// Subjects of the stream
        pattern: String,
        /// Who has read it
        #[arg(long = "as", value_name = "NAME")]
        reader: String,
        #[command(flatten)]
        at: At,
    },
    /// Show what a node keeps
    Kept {
        /// The node, by its number; without it, the one on this machine
        #[arg(long, value_name = "NUMBER")]
        at: Option<u32>,
    },
}

pub(super) async fn main(
    verb: Verb,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match verb {
        Verb::Read { pattern, reader, new, peek, count, at } => {
            let messages = client.read(&pattern, &reader, new, at.holder()).await;
            let messages = messages.map_err(failure)?;
            let ack = (!peek).then_some((pattern.as_str(), reader.as_str()));
            read(client, messages, ack, count, screen).await
        }
        Verb::Take { pattern, count, wait, hold, at } => {
            take(client, &pattern, (count, wait, hold, at.holder()), screen).await
        }
        Verb::Done { pattern, seq, token, at } => {
            let place = Place { by: at, seq, token: Some(token), ..Place::default() };
            client.done(&pattern, &place).await.map_err(failure)?;
            Ok(Exit::Ok)
        }
        Verb::Forget { pattern, reader, at } => {
            client.forget(&pattern, &reader, at.holder()).await.map_err(failure)?;
            Ok(Exit::Ok)
        }
        Verb::Kept { at } => {
            let holder = at.map_or(Holder::Any, Holder::Node);
            show(&client.kept(holder).await.map_err(failure)?, screen)
        }
    }
}

/// Shows a message. Once this is over, whoever reads the output has it.
fn put(message: Message, screen: &mut Screen) -> Result<(), Failure> {
    match screen.json {
        true => screen.json(&Line::Message(message))?,
        false => show_message(&message, screen)?,
    }
    Ok(screen.flush()?)
}

/// Says how to say that a message is done.
fn put_done(pattern: &str, place: &Place, screen: &mut Screen) -> Result<(), Failure> {
    let (pattern, Place { by, seq, .. }) = (escape_line(pattern), place);
    let token = place.token.as_deref().map(escape_line).unwrap_or_default();
    screen.print(&format!("  barid bus done '{pattern}' {seq} {token} --at {by}\n"))?;
    Ok(screen.flush()?)
}

async fn read(
    client: &Client,
    mut messages: bus::Messages,
    ack: Option<(&str, &str)>,
    count: Option<u64>,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        match messages.next().await.map_err(failure)? {
            Some(Line::Message(message)) => {
                left -= 1;
                let place = message.kept.clone();
                put(message, screen)?;
                if let (Some((pattern, reader)), Some(place)) = (ack, place) {
                    client.ack(pattern, reader, &place).await.map_err(failure)?;
                }
            }
            Some(line) if screen.json => {
                screen.json(&line)?;
                screen.flush()?;
                if let Line::Fault(fault) = line {
                    return Err(failure(BusError::Refused(fault)));
                }
            }
            Some(Line::Ready(_)) => {}
            Some(Line::Missed(missed)) => {
                screen.warn(&format!("{missed} messages are missing here"))?;
            }
            Some(Line::Fault(fault)) => return Err(failure(BusError::Refused(fault))),
            None => return Err(Failure::new(Exit::Failed, "stopped", "the node has stopped")),
        }
    }
    Ok(Exit::Ok)
}

async fn take(
    client: &Client,
    pattern: &str,
    (count, wait, hold, holder): (Option<u64>, Option<Duration>, bool, Holder),
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let taken = client.take(pattern, wait.unwrap_or(WAIT), holder).await;
        let Some(message) = taken.map_err(failure)? else {
            match wait {
                Some(_) => break,
                None => continue,
            }
        };
        left -= 1;
        let place = message.kept.clone().unwrap_or_default();
        put(message, screen)?;
        match hold {
            false => client.done(pattern, &place).await.map_err(failure)?,
            true if screen.json => {}
            true => put_done(pattern, &place, screen)?,
        }
    }
    match count {
        Some(_) if left > 0 => Ok(Exit::Missed),
        _ => Ok(Exit::Ok),
    }
}

fn show(all: &AllKept, screen: &mut Screen) -> Result<Exit, Failure> {
    if screen.json {
        screen.json(all)?;
        return Ok(Exit::Ok);
    }
    if !all.wrong.is_empty() {
        screen.warn(&escape_line(&all.wrong))?;
    }
    for kept in &all.kept {
        let (name, subject) = (escape_line(&kept.name), escape_line(&kept.subject));
        let policy = escape_line(&kept.policy);
        let (messages, bytes, next) = (kept.messages, kept.bytes, kept.next);
        let lost = match kept.dropped {
            0 => String::new(),
            lost => format!(", {lost} lost"),
        };
        let why: Vec<_> =
            kept.lost.iter().map(|(w, n)| format!("{} {n}", escape_line(w))).collect();
        let why = match why.is_empty() {
            true => String::new(),
            false => format!(" (since the node was started: {})", why.join(", ")),
        };
        let taken = match kept.taken {
            0 => String::new(),
            taken => format!(", {taken} taken"),
        };
        screen.print(&format!(
            "{name}  {policy} of {subject}: {messages} messages, {bytes} bytes, next {next}\
             {taken}{lost}{why}\n"
        ))?;
        for reader in &kept.readers {
            let (name, through) = (escape_line(&reader.name), reader.through);
            let behind = kept.next.saturating_sub(through).saturating_sub(1);
            screen.print(&format!("  {name}: up to {through}, {behind} behind\n"))?;
        }
    }
    Ok(Exit::Ok)
}
