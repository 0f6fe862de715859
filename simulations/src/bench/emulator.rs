//! The emulator itself: how close a link comes to what was asked of it, and what it costs.
//!
//! One sender offers more datagrams than the rate takes, and one receiver counts what arrives. The
//! link should be the bottleneck at every rate that is used elsewhere, and not its thread.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use simulations::lab::{self, Lab, Plan};
use simulations::wan::{Link, Loss, Profile, Shape, UdpLink};

use crate::table;

/// What a datagram of QUIC's size carries.
const PAYLOAD: usize = 1200;
/// With the headers of UDP and IP.
const SIZE: f64 = 1228.0;
/// Datagrams in one burst of the sender, as many as go into a batch of QUIC's.
const BURST: u32 = 10;
const RATES: [Option<u64>; 4] = [Some(10_000_000), Some(50_000_000), Some(200_000_000), None];
/// What is offered where the rate has no limit.
const OPEN: u64 = 1_000_000_000;
const LASTS: Duration = Duration::from_secs(3);
const DELAY: Duration = Duration::from_millis(50);
const PORT: u16 = 9;

/// Measures both forms.
pub(crate) fn measure() -> Result<()> {
    let mut rows = Vec::new();
    for rate in RATES {
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let link = UdpLink::start(any, target.local_addr()?, &profile(rate), 1)?;
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        rows.push(row("datagrams, in process", rate, link.link(), || {
            offer(&sender, link.address(), &target, rate)
        })?);
    }
    match lab::check() {
        Ok(()) => {
            for rate in RATES {
                let plan = Plan { sites: 1, hosts: 0, profile: profile(rate), seed: 1 };
                let lab = Lab::build(&plan)?;
                let site = lab.sites.first().context("it has one site")?;
                let address = SocketAddr::from((site.gateway.address, PORT));
                let target = site.gateway.inside(|| UdpSocket::bind(address))?;
                let sender = lab.root.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
                rows.push(row("between TUN devices", rate, site.link(), || {
                    offer(&sender, address, &target, rate)
                })?);
            }
        }
        Err(reason) => println!("between TUN devices: skipped, {reason}"),
    }
    table::heading("The emulator, one direction, datagrams of 1200 bytes");
    let head = [
        "form",
        "rate asked",
        "offered",
        "came through",
        "/ (rate - loss)",
        "lost of what left the queue",
        "its thread, of one core",
    ];
    table::print(&head, &rows);
    Ok(())
}

/// What a site's link is like, but for the rate.
fn profile(rate: Option<u64>) -> Profile {
    let queue = rate.map_or(usize::MAX, |rate| rate as usize / 80);
    Profile::even(Shape { rate, queue, delay: DELAY, loss: Loss::Random(0.01), ..Shape::open() })
}

fn row(
    form: &str,
    rate: Option<u64>,
    link: &Link,
    offer: impl FnOnce() -> Result<Duration>,
) -> Result<Vec<String>> {
    let before = cpu()?;
    let took = offer()?.as_secs_f64();
    let cost = cpu()?.saturating_sub(before).as_secs_f64();
    let up = link.traffic().up;
    let c = if up.pushed.packets > 0 { up } else { link.traffic().down };
    // Nothing has arrived before the delay was over.
    let got = c.delivered.bytes as f64 * 8.0 / (took - DELAY.as_secs_f64());
    let share = c.lost.packets as f64 / (c.lost.packets + c.delivered.packets).max(1) as f64;
    let mbit = |bits: f64| format!("{:.1} Mbit/s", bits / 1e6);
    Ok(vec![
        form.into(),
        rate.map_or("none".into(), |rate| mbit(rate as f64)),
        mbit(c.pushed.bytes as f64 * 8.0 / took),
        mbit(got),
        rate.map_or("-".into(), |rate| table::ratio(got, rate as f64 * 0.99)),
        format!("{:.2} %", share * 100.0),
        format!("{:.0} %", cost / took * 100.0),
    ])
}

/// Sends a tenth more than the rate for a while. Returns for how long.
fn offer(
    sender: &UdpSocket,
    to: SocketAddr,
    target: &UdpSocket,
    rate: Option<u64>,
) -> Result<Duration> {
    let pause = f64::from(BURST) * SIZE * 8.0 / (rate.unwrap_or(OPEN) as f64 * 1.1);
    let pause = Duration::from_secs_f64(pause);
    let over = AtomicBool::new(false);
    target.set_read_timeout(Some(Duration::from_millis(100)))?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2 * PAYLOAD];
            while !over.load(Ordering::Relaxed) {
                // What is not read would only fill the socket.
                target.recv(&mut buffer).ok();
            }
        });
        let begun = Instant::now();
        let mut next = begun;
        while begun.elapsed() < LASTS {
            for _ in 0..BURST {
                // A full socket refuses some; what went in is counted at the link.
                sender.send_to(&[7; PAYLOAD], to).ok();
            }
            next += pause;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let took = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        Ok(took)
    })
}

/// The processor time of all links of this process. There is one at a time.
fn cpu() -> Result<Duration> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc/self/task")? {
        let dir = entry?.path();
        if fs::read_to_string(dir.join("comm")).is_ok_and(|name| name.trim() == "wan-link") {
            let text = fs::read_to_string(dir.join("schedstat"))?;
            let nanos = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            sum += nanos.context("the time of a thread")?;
        }
    }
    Ok(Duration::from_nanos(sum))
}
