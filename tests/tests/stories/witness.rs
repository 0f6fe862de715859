//! Receivers of alerts, in this process: each keeps what it was sent.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// How long a reader waits for the rest of what somebody has begun to say.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A list that a thread fills.
#[derive(Clone, Default)]
pub(super) struct Heard<T>(Arc<Mutex<Vec<T>>>);

impl<T: Clone> Heard<T> {
    pub(super) fn push(&self, item: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }

    pub(super) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request to the webhook.
#[derive(Clone, Debug, Default)]
pub(super) struct Post {
    pub(super) head: String,
    pub(super) body: String,
}

impl Post {
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| self.body.clone())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (other, value) = line.split_once(':')?;
            other.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// A webhook receiver, which may hang instead of answering.
pub(super) struct Hook {
    pub(super) addr: SocketAddr,
    pub(super) posts: Heard<Post>,
    hangs: Arc<AtomicBool>,
}

impl Hook {
    pub(super) fn start(hangs: bool) -> Result<Hook> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (addr, posts) = (listener.local_addr()?, Heard::default());
        let hangs = Arc::new(AtomicBool::new(hangs));
        let (heard, hung) = (posts.clone(), hangs.clone());
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                if hung.load(Ordering::SeqCst) {
                    // Open and silent: who waits for it waits until its own limit.
                    held.push(stream);
                    continue;
                }
                let heard = heard.clone();
                std::thread::spawn(move || take_post(stream, &heard));
            }
        });
        Ok(Hook { addr, posts, hangs })
    }

    pub(super) fn recover(&self) {
        self.hangs.store(false, Ordering::SeqCst);
    }

    /// Every alert of every post, as `+key` or `-key` by its status. A post that comes again has
    /// the key that it had before, by which receivers know it.
    pub(super) fn words(&self) -> Result<Vec<String>> {
        let (mut words, mut keys) = (Vec::new(), BTreeSet::new());
        for post in self.posts.all() {
            if !keys.insert(post.header("idempotency-key").context("a key")?.to_owned()) {
                continue;
            }
            let json = post.json()?;
            for alert in json["alerts"].as_array().context("alerts")? {
                let sign = if alert["status"] == "firing" { '+' } else { '-' };
                let labels = &alert["labels"];
                let name = labels["alertname"].as_str().context("a name")?;
                words.push(format!("{sign}{name}/{}", labels["host"].as_str().unwrap_or("")));
            }
        }
        Ok(words)
    }
}

fn take_post(stream: TcpStream, heard: &Heard<Post>) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    heard.push(Post { head, body: String::from_utf8(body).ok()? });
    (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

/// A mail server that takes everything.
pub(super) fn mail_server() -> Result<(SocketAddr, Heard<String>)> {
    mail_server_at(TcpListener::bind("127.0.0.1:0")?)
}

pub(super) fn mail_server_at(listener: TcpListener) -> Result<(SocketAddr, Heard<String>)> {
    let (addr, mails) = (listener.local_addr()?, Heard::default());
    let heard = mails.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = heard.clone();
            std::thread::spawn(move || take_mail(stream, &heard));
        }
    });
    Ok((addr, mails))
}

fn take_mail(stream: TcpStream, heard: &Heard<String>) -> Option<()> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut session = Session::new(stream, heard, false);
    session.say("220 witness ESMTP")?;
    session.serve().map(drop)
}

/// A client of a mail server.
pub(super) struct Session<'a, S> {
    stream: BufReader<S>,
    /// The mails that it sends.
    mails: &'a Heard<String>,
    /// Whether it is offered to speak TLS from then on.
    starttls: bool,
    /// All that it has said beside the mails.
    pub(super) said: Vec<String>,
}

impl<'a, S: Read + Write> Session<'a, S> {
    pub(super) fn new(stream: S, mails: &'a Heard<String>, starttls: bool) -> Session<'a, S> {
        Session { stream: BufReader::new(stream), mails, starttls, said: Vec::new() }
    }

    pub(super) fn say(&mut self, text: &str) -> Option<()> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{text}\r\n").as_bytes()).ok()?;
        stream.flush().ok()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).ok()?;
        (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Serves it until it leaves; or, if it wants TLS, until then: `Some`.
    pub(super) fn serve(&mut self) -> Option<()> {
        while let Some(line) = self.line() {
            self.said.push(line.clone());
            match line.split_whitespace().next().unwrap_or("").to_ascii_uppercase().as_str() {
                "EHLO" if self.starttls => self.say("250-witness\r\n250 STARTTLS")?,
                "EHLO" => self.say("250-witness\r\n250 AUTH PLAIN")?,
                "STARTTLS" if self.starttls => {
                    self.say("220 go ahead")?;
                    return Some(());
                }
                "AUTH" => self.say("235 it is you")?,
                "DATA" => {
                    self.say("354 go on")?;
                    let mut mail = String::new();
                    while let Some(line) = self.line().filter(|line| line != ".") {
                        mail.push_str(&line);
                        mail.push_str("\r\n");
                    }
                    self.mails.push(mail);
                    self.say("250 taken")?;
                }
                "QUIT" => {
                    self.say("221 bye")?;
                    return None;
                }
                _ => self.say("250 fine")?,
            }
        }
        None
    }

    /// The stream, of which nothing more was read than was said.
    pub(super) fn into_stream(self) -> S {
        self.stream.into_inner()
    }
}

/// Everything that is sent to a UDP port, one text for each datagram.
pub(super) fn udp_lines() -> Result<(SocketAddr, Heard<String>)> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let (addr, texts) = (socket.local_addr()?, Heard::default());
    let heard = texts.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length) = socket.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    Ok((addr, texts))
}

/// Everything that is sent to a TCP port, one text for each connection.
pub(super) fn tcp_lines() -> Result<(SocketAddr, Heard<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (addr, texts) = (listener.local_addr()?, Heard::default());
    let heard = texts.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut text = String::new();
            stream.set_read_timeout(Some(PATIENCE)).ok();
            stream.read_to_string(&mut text).ok();
            heard.push(text);
        }
    });
    Ok((addr, texts))
}
