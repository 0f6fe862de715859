//! The bus beside nats-server: the same messages through as many servers in a row, one after the
//! other on the same machine in the same run.
//!
//! Four nodes stand in a row: controller, two relays, a host; and four nats-servers, each the leaf
//! of the one before. One program subscribes at the last of them, others publish at each: there
//! (local), or one, two and three links away. Nothing is kept on either side. A program of Barid
//! says each message by HTTP and is answered; NATS is measured with its own answers (`verbose`),
//! and without, as its clients do it by default.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::{Fleet, Spec, wait_for};

use crate::nats::Servers;
use crate::proc::{self, Memory};
use crate::table::{self, Spread};

/// What is published, and where.
pub(crate) const SUBJECT: &str = "bench.word";
/// The bytes of a message.
const BYTES: usize = 128;
/// Messages of which each waits until the one before has arrived.
const ALONE: usize = 500;
/// Programs that publish at once, and how much each.
const SPEAKERS: usize = 8;
const EACH: usize = 2_500;
/// Servers in a row.
const ROW: usize = 4;
/// Who hears nothing for so long hears nothing more.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);
/// Nodes beat as they would in the field; redialling is quick.
const PACE: &str = "redial_base_ms = 200\nredial_cap_ms = 2000\n";

/// Something that publishes.
pub(crate) trait Speaker: Send {
    /// Publishes. Where the server answers, it has.
    fn say(&mut self, body: &[u8]) -> Result<()>;
    /// Has the server take all that was said.
    fn end(&mut self) -> Result<()>;
}

/// Something that has subscribed.
pub(crate) trait Listener: Send {
    /// The next message. None: it was silent for long.
    fn hear(&mut self) -> Result<Option<Vec<u8>>>;
}

/// Servers in a row, the last one first.
trait Row {
    fn name(&self) -> &'static str;
    fn speaker(&self, links: usize) -> Result<Box<dyn Speaker>>;
    fn listener(&self) -> Result<Box<dyn Listener>>;
    fn pids(&self) -> Result<Vec<u32>>;
}

/// What was measured.
struct Figures {
    alone: Spread,
    rate: f64,
    lost: usize,
    /// Of the server where was published, and of all of them together, in KiB.
    memory: (u64, u64),
}

/// Measures both.
pub(crate) fn measure(barid: &Path, work: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for links in 0..ROW {
        // Each with servers that have carried nothing before.
        rows.push(row(&Nodes::start(barid)?, links)?);
        match Servers::start(work, ROW) {
            Ok(servers) => {
                for verbose in [true, false] {
                    rows.push(row(&Nats { servers: &servers, verbose }, links)?);
                }
            }
            Err(error) => println!("nats-server is skipped: {error:#}"),
        }
    }
    table::heading("Messages between programs");
    let head =
        ["who", "links", "p50", "p99", "messages a second", "lost", "the server", "all servers"];
    table::print(&head, &rows);
    println!(
        "\n{BYTES} bytes each. Times: of {ALONE} messages, one after the other, until one program \
         has heard it. Rate: {SPEAKERS} programs publish {EACH} each as fast as they can. Memory: \
         resident, the most of the server where was published, and of all {ROW} afterwards."
    );
    Ok(())
}

fn row(servers: &dyn Row, links: usize) -> Result<Vec<String>> {
    let Figures { alone, rate, lost, memory } = figures(servers, links)
        .with_context(|| format!("{}, through {links} links", servers.name()))?;
    let micros = |share| format!("{:.0} us", alone.rank(share).as_secs_f64() * 1e6);
    Ok(vec![
        servers.name().into(),
        links.to_string(),
        micros(0.5),
        micros(0.99),
        format!("{rate:.0}"),
        lost.to_string(),
        table::memory(memory.0),
        table::memory(memory.1),
    ])
}

fn figures(servers: &dyn Row, links: usize) -> Result<Figures> {
    let mut listener = servers.listener()?;
    let mut speaker = servers.speaker(links)?;
    meet(&mut *speaker, &mut *listener)?;
    let mut times = Vec::with_capacity(ALONE);
    for no in 0..ALONE {
        let body = body(no);
        let begun = Instant::now();
        speaker.say(&body)?;
        let heard = listener.hear()?.context("a message was lost, and there was no other")?;
        times.push(begun.elapsed());
        ensure!(heard == body, "another message came");
    }
    drop(speaker);
    let (rate, lost) = flood(servers, links, listener)?;
    let pids = servers.pids()?;
    let at = *pids.get(links).context("a server there")?;
    let all = pids.iter().map(|pid| Ok(Memory::of(*pid)?.resident)).sum::<Result<u64>>()?;
    Ok(Figures { alone: Spread::of(times), rate, lost, memory: (proc::peak(at)?, all) })
}

/// A message, which no other is like.
fn body(no: usize) -> Vec<u8> {
    let mut body = format!("{no} ").into_bytes();
    body.resize(BYTES, b'x');
    body
}

/// Publishes until the subscription is known where it is published, and hears all of that.
fn meet(speaker: &mut dyn Speaker, listener: &mut dyn Listener) -> Result<()> {
    let last = body(usize::MAX);
    wait_for("the first message", tests::LIMIT, || {
        speaker.say(&body(0))?;
        listener.hear()
    })?;
    speaker.say(&last)?;
    while listener.hear()?.context("the last one of them")? != last {}
    Ok(())
}

/// Messages a second, and how many were not heard.
fn flood(servers: &dyn Row, links: usize, mut listener: Box<dyn Listener>) -> Result<(f64, usize)> {
    let speakers = (0..SPEAKERS).map(|_| servers.speaker(links)).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let heard = scope.spawn(move || -> Result<(usize, Instant)> {
            let (mut heard, mut last) = (0, begun);
            while heard < SPEAKERS * EACH
                && let Some(_) = listener.hear()?
            {
                (heard, last) = (heard + 1, Instant::now());
            }
            Ok((heard, last))
        });
        let said: Vec<_> = speakers
            .into_iter()
            .map(|mut speaker| {
                scope.spawn(move || -> Result<()> {
                    (0..EACH).try_for_each(|no| speaker.say(&body(no)))?;
                    speaker.end()
                })
            })
            .collect();
        for speaker in said {
            speaker.join().expect("a speaker does not panic")?;
        }
        let (heard, last) = heard.join().expect("the listener does not panic")?;
        ensure!(heard > 0, "nothing was heard");
        let seconds = last.duration_since(begun).as_secs_f64();
        Ok((heard as f64 / seconds, SPEAKERS * EACH - heard))
    })
}

/// Barid.
struct Nodes(Fleet);

impl Nodes {
    fn start(barid: &Path) -> Result<Nodes> {
        let mut fleet = Fleet::prepared(barid.to_owned(), PACE, &[], |_| Ok(()))?;
        for (role, name, parent) in
            [("relay", "r1", "controller"), ("relay", "r2", "r1"), ("host", "h", "r2")]
        {
            fleet.add(&Spec::new(role, name, parent))?;
        }
        fleet.wait_up(3)?;
        Ok(Nodes(fleet))
    }

    fn socket(&self, links: usize) -> PathBuf {
        self.0.state(["h", "r2", "r1", "controller"][links]).join("node.sock")
    }
}

impl Row for Nodes {
    fn name(&self) -> &'static str {
        "Barid"
    }

    fn speaker(&self, links: usize) -> Result<Box<dyn Speaker>> {
        let stream = UnixStream::connect(self.socket(links))?;
        Ok(Box::new(Http(BufReader::new(stream))))
    }

    fn listener(&self) -> Result<Box<dyn Listener>> {
        let stream = UnixStream::connect(self.socket(0))?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut lines = Http(BufReader::new(stream));
        lines.post(&format!("sub?subject={SUBJECT}"), b"")?;
        let mut ready = String::new();
        while !ready.contains("ready") {
            ready.clear();
            ensure!(lines.0.read_line(&mut ready)? > 0, "the subscription has ended");
        }
        Ok(Box::new(lines))
    }

    fn pids(&self) -> Result<Vec<u32>> {
        ["h", "r2", "r1", "controller"].into_iter().map(|name| self.0.pid(name)).collect()
    }
}

/// A connection to a node.
struct Http(BufReader<UnixStream>);

impl Http {
    fn post(&mut self, what: &str, body: &[u8]) -> Result<()> {
        let len = body.len();
        let head =
            format!("POST /v1/bus/{what} HTTP/1.1\r\nhost: barid\r\ncontent-length: {len}\r\n\r\n");
        // At once, as clients do.
        let all = [head.as_bytes(), body].concat();
        Ok(self.0.get_mut().write_all(&all)?)
    }

    /// Reads a head. Returns how long the body is.
    fn head(&mut self) -> Result<usize> {
        let (mut line, mut len) = (String::new(), 0);
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the node has closed the connection");
            if line.starts_with("HTTP/") {
                ensure!(line.contains(" 200 "), "the node says {line}");
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                len = text.trim().parse()?;
            }
            if line == "\r\n" {
                return Ok(len);
            }
        }
    }
}

impl Speaker for Http {
    fn say(&mut self, body: &[u8]) -> Result<()> {
        self.post(&format!("pub?subject={SUBJECT}"), body)?;
        let len = self.head()?;
        self.0.read_exact(&mut vec![0; len])?;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Listener for Http {
    fn hear(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = String::new();
        loop {
            line.clear();
            match self.0.read_line(&mut line) {
                Ok(0) => bail!("the subscription has ended"),
                Ok(_) => {}
                Err(error) if is_silence(&error) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // Between the lines stand the lengths of chunks.
            if let Ok(said) = serde_json::from_str::<serde_json::Value>(&line)
                && let Some(data) = said["message"]["data"].as_str()
            {
                return Ok(Some(data.into()));
            }
        }
    }
}

/// Whether nothing has come for a while.
pub(crate) fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// NATS.
struct Nats<'a> {
    servers: &'a Servers,
    verbose: bool,
}

impl Row for Nats<'_> {
    fn name(&self) -> &'static str {
        if self.verbose { "nats-server, each answered" } else { "nats-server" }
    }

    fn speaker(&self, links: usize) -> Result<Box<dyn Speaker>> {
        Ok(Box::new(self.servers.speaker(links, self.verbose)?))
    }

    fn listener(&self) -> Result<Box<dyn Listener>> {
        Ok(Box::new(self.servers.listener()?))
    }

    fn pids(&self) -> Result<Vec<u32>> {
        Ok(self.servers.pids())
    }
}
