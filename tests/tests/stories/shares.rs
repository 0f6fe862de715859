//! What one user other than root may take of a node's bus: it is said what is too much, and the
//! others have what they had.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{Uid, set_thread_res_uid};
use tests::{Fleet, LIMIT, Spec, connect, wait_for};

use crate::bus::{Publisher, wait_heard};

const NOBODY: u32 = 65_534;
/// What one user may have: connections, patterns, and patterns of one subscription.
const CONNECTIONS: usize = 1_024;
const PATTERNS: usize = 1_024;
const OF_ONE: usize = 64;

/// A host with a socket for everybody, and where that is. None: nobody can be somebody else here.
fn host() -> Result<Option<(Fleet, PathBuf)>> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return Ok(None);
    }
    // This process holds as many connections as a user may have, and more.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let mut fleet = Fleet::new()?;
    let socket = fleet.path().join("bus.sock");
    let config = format!("[bus]\nsocket = \"{}\"\n", socket.display());
    fleet.add(&Spec::new("host", "web1", "controller").with(&config))?;
    fs::set_permissions(fleet.path(), fs::Permissions::from_mode(0o755))?;
    let policy =
        "[[allow]]\nusers = [\"nobody\"]\nsubscribe = [\"app.>\"]\npublish = [\"app.>\"]\n";
    fs::write(fleet.state("web1").join("bus.toml"), policy)?;
    wait_for("the socket", LIMIT, || Ok(socket.exists().then_some(())))?;
    Ok(Some((fleet, socket)))
}

/// Does something as another user, in a thread that stays so until it ends.
fn as_nobody<T: Send>(what: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            let user = Uid::from_raw(NOBODY);
            set_thread_res_uid(user, user, user)?;
            what()
        });
        done.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })
}

/// Subscribes to so many patterns. What the node says to it, if it does not let it be: the whole
/// answer.
fn subscribe(socket: &Path, patterns: usize) -> Result<Result<BufReader<UnixStream>, String>> {
    let mut stream = connect(socket)?;
    let subjects: Vec<_> = (0..patterns).map(|n| format!("subject=app.{n}")).collect();
    let what = format!("/v1/bus/sub?{}", subjects.join("&"));
    write!(
        stream,
        "POST {what} HTTP/1.1\r\nhost: barid\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let (mut reader, mut said) = (BufReader::new(stream), String::new());
    while reader.read_line(&mut said)? > 0 {
        if said.contains("\"ready\"") {
            return Ok(Ok(reader));
        }
    }
    Ok(Err(said))
}

#[test]
fn a_user_is_told_that_his_patterns_are_all_he_gets_and_others_have_theirs() -> Result<()> {
    let Some((fleet, socket)) = host()? else { return Ok(()) };
    let mut his = as_nobody(|| {
        let all = (0..PATTERNS / OF_ONE).map(|_| subscribe(&socket, OF_ONE)?.map_err(refused));
        all.collect::<Result<Vec<_>>>()
    })?;
    let said = as_nobody(|| subscribe(&socket, 1))?.err().context("it is too much")?;
    ensure!(said.starts_with("HTTP/1.1 503"), "{said}");
    let why = format!("user {NOBODY} would have more than {PATTERNS} patterns");
    ensure!(said.contains("\"full\"") && said.contains(&why), "{said}");
    // Root has no part in that, and what nobody has goes on.
    let mut own = subscribe(&socket, OF_ONE)?.map_err(refused)?;
    wait_heard(&fleet, "controller", "app.7", true)?;
    let mut publisher = Publisher(connect(&socket)?);
    publisher.publish("app.7", b"heard")?;
    for reader in his.iter_mut().chain([&mut own]) {
        let mut line = String::new();
        while !line.contains("heard") {
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "the node has closed the connection");
            ensure!(!line.contains("missed"), "{line}");
        }
    }
    // What he gives back he may have again.
    his.pop();
    wait_for("what he has given back", LIMIT, || {
        Ok(as_nobody(|| subscribe(&socket, OF_ONE))?.ok())
    })?;
    Ok(())
}

#[test]
fn a_user_is_told_that_his_connections_are_all_he_gets_and_others_have_theirs() -> Result<()> {
    let Some((_fleet, socket)) = host()? else { return Ok(()) };
    let mut his = as_nobody(|| {
        let all = (0..CONNECTIONS).map(|_| connect(&socket));
        all.collect::<Result<Vec<_>>>()
    })?;
    let ask = |stream: &mut UnixStream| -> Result<String> {
        let body = "x";
        write!(
            stream,
            "POST /v1/bus/pub?subject=app.x HTTP/1.1\r\nhost: barid\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    let said = as_nobody(|| ask(&mut connect(&socket)?))?;
    ensure!(said.starts_with("HTTP/1.1 503"), "{said}");
    let why = format!("user {NOBODY} has {CONNECTIONS} connections to this socket");
    ensure!(said.contains("\"full\"") && said.contains(&why), "{said}");
    // Others come in.
    let said = ask(&mut connect(&socket)?)?;
    ensure!(said.starts_with("HTTP/1.1 200"), "{said}");
    // And each of his has its place.
    let said = ask(his.last_mut().context("he has some")?)?;
    ensure!(said.starts_with("HTTP/1.1 200"), "{said}");
    drop(his);
    wait_for("his places to be free again", LIMIT, || {
        let said = as_nobody(|| ask(&mut connect(&socket)?))?;
        Ok(said.starts_with("HTTP/1.1 200").then_some(()))
    })?;
    Ok(())
}

fn refused(said: String) -> anyhow::Error {
    anyhow::anyhow!("it was refused: {said}")
}
