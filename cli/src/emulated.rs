//! The emulated lines of a demo: one between the controller and each site, in this process.
//!
//! They end with the process, so a fleet that is to be left up cannot hang on them.

use std::net::SocketAddr;

use wan::{Loss, Profile, Shape, ShapeError, UdpLink};

use crate::exit::Exit;
use crate::fail::Failure;
use crate::units::{show_bytes, show_count};

/// The kind of a line, if there is one of that name.
pub(crate) fn profile(name: &str) -> Result<String, ShapeError> {
    Profile::named(name).map(|_| name.to_owned())
}

/// A line of this kind for each site.
pub(crate) fn start(name: &str, sites: u32, controller: &str) -> Result<Vec<UdpLink>, Failure> {
    let no_line = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, "demo", format!("no emulated line: {error}"))
    };
    let profile = Profile::named(name).map_err(|error| no_line(&error))?;
    let target: SocketAddr = controller.parse().map_err(|error| no_line(&error))?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let line = |site: u32| UdpLink::start(listen, target, &profile, site.into());
    (1..=sites).map(|site| line(site).map_err(|error| no_line(&error))).collect()
}

/// What such a line is like: `10 Mbit/s down and up, 100 ms round trip, 1 % lost each way`.
pub(crate) fn described(name: &str) -> String {
    let Ok(profile) = Profile::named(name) else { return name.to_owned() };
    let (down, up) = (rate(&profile.down), rate(&profile.up));
    let rates = match down == up {
        true => format!("{down} down and up"),
        false => format!("{down} down, {up} up"),
    };
    let lost = match profile.down.loss {
        Loss::None => "nothing lost".to_owned(),
        Loss::Random(share) => format!("{} % lost each way", percent(share)),
        Loss::Bursts { share, .. } => format!("{} % lost each way, in bursts", percent(share)),
    };
    let dark = if profile.down.blackouts.is_empty() { "" } else { ", dark at times" };
    let ms = profile.round_trip().as_secs_f64() * 1_000.0;
    format!("{rates}, {ms} ms round trip, {lost}{dark}")
}

/// What has happened on the lines so far, as a line for each site.
pub(crate) fn traffic(lines: &[UdpLink]) -> Vec<String> {
    let line = |(n, line): (usize, &UdpLink)| {
        let traffic = line.link().traffic();
        let (down, up) = (traffic.down.delivered.bytes, traffic.up.delivered.bytes);
        let lost = traffic.down.lost.packets + traffic.up.lost.packets;
        format!(
            "  site{}: {} down and {} up have come through, {} packets were lost on the way",
            n + 1,
            show_bytes(down),
            show_bytes(up),
            show_count(lost)
        )
    };
    lines.iter().enumerate().map(line).collect()
}

fn rate(shape: &Shape) -> String {
    shape.rate.map_or_else(|| "any rate".into(), relay::show_rate)
}

fn percent(share: f64) -> f64 {
    (share * 10_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_described() {
        let check = |name, words| assert_eq!(described(name), words);
        check("weak", "10 Mbit/s down and up, 100 ms round trip, 1 % lost each way");
        check("veryweak", "2 Mbit/s down and up, 300 ms round trip, 3 % lost each way");
        check("lan", "1 Gbit/s down and up, 0.2 ms round trip, nothing lost");
        check("geo", "4 Mbit/s down, 1 Mbit/s up, 600 ms round trip, 1 % lost each way, in bursts");
        assert!(described("breaky").ends_with("dark at times"));
        let error = profile("moon").expect_err("nobody knows it");
        assert!(error.to_string().contains("veryweak"), "{error}");
    }
}
