//! The laboratory: links between namespaces are what was asked for, and nothing is left behind.
//!
//! Needs root, TUN and namespaces. Where they are absent each test says so and passes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use simulations::lab::{self, Lab, Plan};
use simulations::wan::{Profile, Shape};

const LIMIT: Duration = Duration::from_secs(60);
/// Tells a copy of this test program to build a laboratory and to die.
const DIE: &str = "BARID_LAB_TEST_DIE";

/// A laboratory, or none where there cannot be one.
fn built(profile: Profile) -> Result<Option<Lab>> {
    if let Err(reason) = lab::check() {
        println!("skipped: {reason}");
        return Ok(None);
    }
    Ok(Some(Lab::build(&Plan { sites: 2, hosts: 2, profile, seed: 1 })?))
}

fn delayed(ms: u64) -> Shape {
    Shape { delay: Duration::from_millis(ms), ..Shape::open() }
}

/// How many namespaces there are whose names begin so.
fn namespaces(prefix: &str) -> usize {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count()
}

fn prefix(lab: &Lab) -> String {
    lab.root.namespace.trim_end_matches("root").to_owned()
}

#[test]
fn every_host_is_reached_through_its_link_and_never_early() -> Result<()> {
    let Some(lab) = built(Profile { down: delayed(40), up: delayed(20) })? else { return Ok(()) };
    let bind = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(socket)
    };
    let root = lab.root.inside(bind)?;
    let mut buffer = [0; 100];
    for site in &lab.sites {
        let before = site.link().traffic();
        for host in &site.hosts {
            let socket = host.inside(bind)?;
            let begun = Instant::now();
            root.send_to(b"there", (host.address, 9))?;
            let (_, from) = socket.recv_from(&mut buffer).context("at the host")?;
            assert!(begun.elapsed() >= Duration::from_millis(40), "{:?}", begun.elapsed());
            socket.send_to(b"back", from)?;
            let (len, from) = root.recv_from(&mut buffer).context("at the root")?;
            assert!(begun.elapsed() >= Duration::from_millis(60), "{:?}", begun.elapsed());
            assert_eq!((&buffer[..len], from.ip()), (&b"back"[..], host.address.into()));
        }
        let after = site.link().traffic();
        let down = after.down.delivered.bytes - before.down.delivered.bytes;
        // Twice five bytes with 28 of headers; hosts of one site need no link to see each other.
        assert_eq!(down, 66, "{after:?}");
        assert_eq!(after.unsent, 0);
    }
    Ok(())
}

#[test]
fn a_stream_comes_through_loss_unharmed_and_no_faster_than_the_rate() -> Result<()> {
    let weak = Profile::named("weak")?;
    let fast = |shape: Shape| Shape { rate: Some(50_000_000), queue: 250_000, ..shape };
    let profile = Profile { down: fast(weak.down), up: fast(weak.up) };
    let Some(lab) = built(profile)? else { return Ok(()) };
    let host = &lab.sites[1].hosts[0];
    let address = (host.address, 9);
    let listener = host.inside(|| TcpListener::bind(address))?;
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let begun = Instant::now();
    let received = std::thread::scope(|scope| -> Result<Vec<u8>> {
        let sender = scope.spawn(|| -> Result<()> {
            let mut stream = lab.root.inside(|| TcpStream::connect(address))?;
            Ok(stream.write_all(&bytes)?)
        });
        let mut received = Vec::new();
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read_to_end(&mut received)?;
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        Ok(received)
    })?;
    assert!(received == bytes, "{} bytes of {} have arrived", received.len(), bytes.len());
    // 16 Mbit at 50 Mbit/s.
    assert!(begun.elapsed() >= Duration::from_millis(320), "{:?}", begun.elapsed());
    let down = lab.sites[1].link().traffic().down;
    assert!(down.lost.packets > 0 && down.delivered.bytes > 2_000_000, "{down:?}");
    assert_eq!(lab.sites[0].link().traffic().down.pushed.packets, 0);
    Ok(())
}

#[test]
fn tcp_is_pinned_at_both_ends_of_every_connection() -> Result<()> {
    use rustix::net::sockopt::tcp_congestion;
    let Some(lab) = built(Profile::even(Shape::open()))? else { return Ok(()) };
    let there = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control")?;
    // Whatever the default is: with two of them at least one pin changes something.
    for control in there.split_whitespace() {
        lab.pin_tcp(control)?;
        let site = &lab.sites[1];
        for (from, to) in [
            (&lab.root, &site.hosts[1]),
            (&site.hosts[1], &lab.root),
            (&lab.root, &site.gateway),
            (&site.gateway, &site.hosts[0]),
            (&site.hosts[0], &site.gateway),
        ] {
            let address = (to.address, 9);
            let listener = to.inside(|| TcpListener::bind(address))?;
            let ours = from.inside(|| TcpStream::connect(address))?;
            let (theirs, _) = listener.accept()?;
            let got = [tcp_congestion(&ours)?, tcp_congestion(&theirs)?];
            assert_eq!(got, [control, control], "{from:?} to {to:?}");
        }
    }
    assert!(lab.pin_tcp("no-such-control").is_err());
    Ok(())
}

#[test]
fn nothing_is_left_of_a_laboratory() -> Result<()> {
    let Some(lab) = built(Profile::even(Shape::open()))? else { return Ok(()) };
    let prefix = prefix(&lab);
    // A root, and twice a gateway with two hosts.
    assert_eq!(namespaces(&prefix), 7);
    let scratch = lab.scratch().to_path_buf();
    std::fs::write(scratch.join("file"), "something")?;
    let mut inside = lab.sites[0].hosts[1].command("sleep").arg("1000").spawn()?;
    drop(lab);
    assert!(!scratch.exists(), "{}", scratch.display());
    assert_eq!(namespaces(&prefix), 0);
    assert!(!inside.wait()?.success(), "it was killed");
    Ok(())
}

#[test]
fn nothing_is_left_of_a_laboratory_whose_process_dies() -> Result<()> {
    if let Err(reason) = lab::check() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "builds_one_and_dies", "--nocapture"])
        .env(DIE, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    let prefix = lines.map_while(Result::ok).find_map(|line| {
        let (_, prefix) = line.split_once("prefix=")?;
        Some(prefix.to_owned())
    });
    let prefix = prefix.context("the prefix of the other laboratory")?;
    assert!(!child.wait()?.success(), "it has died");
    let until = Instant::now() + LIMIT;
    while namespaces(&prefix) > 0 {
        ensure!(Instant::now() < until, "{prefix} is still there");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// Not a test of its own: what the test above starts.
#[test]
fn builds_one_and_dies() -> Result<()> {
    if std::env::var_os(DIE).is_none() {
        return Ok(());
    }
    let lab = built(Profile::even(Shape::open()))?.context("it was checked before")?;
    let _inside = lab.root.command("sleep").arg("1000").spawn()?;
    println!("prefix={}", prefix(&lab));
    std::process::abort();
}
