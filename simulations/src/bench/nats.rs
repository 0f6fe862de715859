//! nats-servers in a row, each a leaf of the one before, and a client of as much of their protocol
//! as a measurement needs: lines over TCP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tests::wait_for;

use crate::bus::{Listener, SILENCE, SUBJECT, Speaker, is_silence};

const PROGRAM: &str = "nats-server";

/// The servers, the last leaf first. They end with this.
pub(crate) struct Servers(Vec<Server>);

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Servers {
    /// Starts so many. An error says why there are none.
    pub(crate) fn start(work: &Path, count: usize) -> Result<Servers> {
        let mut servers = Vec::new();
        let mut above = None;
        for no in 0..count {
            let (port, leaves) = (free_port()?, free_port()?);
            let remote = above.map_or(String::new(), |above: u16| {
                format!("remotes: [{{ url: \"nats-leaf://127.0.0.1:{above}\" }}]")
            });
            let text = format!(
                "listen: \"127.0.0.1:{port}\"\nserver_name: n{no}\n\
                 leafnodes {{ listen: \"127.0.0.1:{leaves}\"\n{remote} }}\n"
            );
            let config = work.join(format!("nats-{no}.conf"));
            std::fs::write(&config, text)?;
            let child = Command::new(PROGRAM)
                .arg("-c")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("nats-server does not start (package nats-server)")?;
            servers.push(Server { child, port });
            wait_for("nats-server to listen", tests::LIMIT, || {
                Ok(Connection::open(port, false).ok().map(drop))
            })?;
            above = Some(leaves);
        }
        servers.reverse();
        Ok(Servers(servers))
    }

    pub(crate) fn speaker(&self, links: usize, verbose: bool) -> Result<Connection> {
        let server = self.0.get(links).context("no server is so far away")?;
        Connection::open(server.port, verbose)
    }

    /// At the last leaf.
    pub(crate) fn listener(&self) -> Result<Connection> {
        let server = self.0.first().context("there is no server")?;
        let mut connection = Connection::open(server.port, false)?;
        connection.line(&format!("SUB {SUBJECT} 1"))?;
        connection.end()?;
        connection.0.get_ref().set_read_timeout(Some(SILENCE))?;
        Ok(connection)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.0.iter().map(|server| server.child.id()).collect()
    }
}

/// A port on which nobody listens just now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A connection of a program; whether the server answers each of its lines.
pub(crate) struct Connection(BufReader<TcpStream>, bool);

impl Connection {
    fn open(port: u16, verbose: bool) -> Result<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let mut connection = Connection(BufReader::new(stream), verbose);
        let info = connection.next()?;
        ensure!(info.starts_with("INFO "), "the server begins with {info:?}");
        connection.line(&format!("CONNECT {{\"verbose\":{verbose},\"pedantic\":false}}"))?;
        if verbose {
            connection.answered()?;
        }
        connection.end()?;
        Ok(connection)
    }

    fn line(&mut self, line: &str) -> Result<()> {
        Ok(self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())?)
    }

    /// The next line that is not a question whether somebody is there.
    fn next(&mut self) -> Result<String> {
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "the server has closed the connection");
            if line.trim() != "PING" {
                return Ok(line);
            }
            self.line("PONG")?;
        }
    }

    fn answered(&mut self) -> Result<()> {
        let answer = self.next()?;
        ensure!(answer.trim() == "+OK", "the server says {answer:?}");
        Ok(())
    }
}

impl Speaker for Connection {
    fn say(&mut self, body: &[u8]) -> Result<()> {
        let head = format!("PUB {SUBJECT} {}\r\n", body.len());
        let all = [head.as_bytes(), body, b"\r\n"].concat();
        self.0.get_mut().write_all(&all)?;
        if self.1 { self.answered() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<()> {
        self.line("PING")?;
        let answer = self.next()?;
        ensure!(answer.trim() == "PONG", "the server says {answer:?}");
        Ok(())
    }
}

impl Listener for Connection {
    fn hear(&mut self) -> Result<Option<Vec<u8>>> {
        let line = match self.next() {
            Ok(line) => line,
            Err(error) => match error.downcast_ref::<std::io::Error>() {
                Some(cause) if is_silence(cause) => return Ok(None),
                _ => return Err(error),
            },
        };
        let Some(head) = line.strip_prefix("MSG ") else { bail!("the server says {line:?}") };
        let len = head.split_whitespace().last().context("a length")?.parse::<usize>()?;
        let mut body = vec![0; len + 2];
        self.0.read_exact(&mut body)?;
        body.truncate(len);
        Ok(Some(body))
    }
}
