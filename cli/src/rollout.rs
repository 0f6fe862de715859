//! `barid rollout`: what goes out in waves: how it stands, and what operators say to it.

use std::time::Duration;

use controller::types::{NewResume, RolloutInfo, WaveInfo};

use crate::client::{Client, is_broken, segment};
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::units::{show_count, show_duration, show_time, since, until};

/// The gate if none is given.
pub(crate) const USUAL_GATE: &str = "errors<=1% missed<=10%";
/// How much of a set a table shows.
const SET_WIDTH: usize = 48;
/// The pause before a controller that has gone is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is asked again.
const TRIES: u32 = 60;

const DETAILS: &str = "\
A wave is given when the gate of the one before it has passed. A rollout goes on whether anybody
watches or not, also when the controller is started again. If a gate does not pass it stops: what
was not begun is taken back, and nobody else gets it until you say so.

Examples:
  barid push /srv/www -a --waves 1,5%,25%,100% --gate 'ok>=98% errors<=1% soak=10m'
  barid rollout                            all of them
  barid rollout show last                  how it stands, by wave
  barid rollout resume last                from where it was; whoever is not ok gets it again
  barid rollout resume last --accept       the wave at which it stopped is good enough
  barid rollback ID                        a rollout that has stopped: back to what was there";

/// Options of `barid rollout`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What can be said to a rollout.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// List them, the newest first
    List,
    /// Show how one stands, by wave
    Show(OneArgs),
    /// Watch one until it has stopped or is over
    Watch(OneArgs),
    /// Open no other wave until `resume`, and take back what hosts have not begun
    Pause(OneArgs),
    /// Go on: after a pause where it was, after a stop with the wave at which it stopped
    Resume(ResumeArgs),
    /// End it: no other wave opens, and what was not begun is taken back
    Abort(OneArgs),
}

/// Which one.
#[derive(Clone, Debug, clap::Args)]
struct OneArgs {
    /// The id of the rollout, its short form, or `last`
    #[arg(value_name = "ID", default_value = "last")]
    id: String,
}

/// Options of `barid rollout resume`.
#[derive(Clone, Debug, clap::Args)]
struct ResumeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Take the wave at which it stopped as good as it is, and open the next one
    #[arg(long)]
    accept: bool,
    /// Another gate from here on
    #[arg(long, value_name = "GATE")]
    gate: Option<String>,
    /// Do not wait
    #[arg(long = "async")]
    detach: bool,
}

/// Shows rollouts, or tells one what to do.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => list(client, screen).await,
        Verb::Show(one) => {
            let info: RolloutInfo = client.get(&path(&one.id, "")?).await?;
            show(&info, screen)?;
            Ok(Exit::Ok)
        }
        Verb::Watch(one) => watch_id(client, screen, &one.id).await,
        Verb::Pause(one) => said(client, screen, &one.id, "/pause", &()).await,
        Verb::Abort(one) => said(client, screen, &one.id, "/abort", &()).await,
        Verb::Resume(ResumeArgs { one, accept, gate, detach }) => {
            let new = NewResume { accept, gate };
            let info: RolloutInfo = client.post(&path(&one.id, "/resume")?, &new).await?;
            match detach {
                true => one_line(&info, screen),
                false => watch(client, screen, &info, false).await,
            }
        }
    }
}

fn path(id: &str, what: &str) -> Result<String, Failure> {
    Ok(format!("/v1/rollouts/{}{what}", segment(id)?))
}

async fn said(
    client: &Client,
    screen: &mut Screen,
    id: &str,
    what: &str,
    new: &impl serde::Serialize,
) -> Result<Exit, Failure> {
    let info: RolloutInfo = client.post(&path(id, what)?, new).await?;
    one_line(&info, screen)
}

fn one_line(info: &RolloutInfo, screen: &mut Screen) -> Result<Exit, Failure> {
    if screen.json {
        screen.json(info)?;
    } else {
        screen.say(&standing(info))?;
        if info.state == "aborted" && info.waves.iter().any(|wave| !wave.orders.is_empty()) {
            let short = &info.short;
            let back = format!("`barid rollback {short}` takes back what is in place");
            screen.help(if info.kind == "push" {
                &back
            } else {
                "`barid file rollback` goes back"
            })?;
        }
    }
    Ok(Exit::Ok)
}

async fn list(client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let all: Vec<RolloutInfo> = client.get("/v1/rollouts").await?;
    if screen.json {
        screen.json(&all)?;
        return Ok(Exit::Ok);
    }
    let row = |one: &RolloutInfo| {
        let what = escape_line(&one.what).into_owned();
        let stands = match one.stage.as_str() {
            "" => one.state.clone(),
            stage => format!("{} ({stage})", one.state),
        };
        let (begun, wave) = (show_time(one.issued_ms), format!("{}", one.wave));
        vec![one.short.clone(), begun, stands, wave, show_count(one.hosts), what]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    screen.print(&table(&["ID", "BEGUN", "STANDS", "WAVE", "HOSTS", "WHAT"], &rows))?;
    Ok(Exit::Ok)
}

fn show(info: &RolloutInfo, screen: &mut Screen) -> Result<(), Failure> {
    if screen.json {
        return Ok(screen.json(info)?);
    }
    screen.print(&format!("{}\n", standing(info)))?;
    let gate = if info.gate.is_empty() { USUAL_GATE } else { &info.gate };
    screen.print(&format!("gate: {}\n\n", escape_line(gate)))?;
    let has_newer = info.waves.iter().any(|wave| wave.superseded > 0);
    let row = |(at, wave): (usize, &WaveInfo)| {
        let mut set: String = wave.set.chars().take(SET_WIDTH).collect();
        if set.len() < wave.set.len() {
            set.push_str("...");
        }
        let counts = [wave.hosts, wave.ok, wave.errors, wave.missed, wave.pending, wave.left_out];
        let mut row = vec![(at + 1).to_string()];
        row.extend(counts.map(show_count));
        row.extend(has_newer.then(|| show_count(wave.superseded)));
        row.extend([wave.orders.join(" "), set]);
        row
    };
    let rows: Vec<Vec<String>> = info.waves.iter().enumerate().map(row).collect();
    let mut heads = vec!["WAVE", "HOSTS", "OK", "FAILED", "MISSED", "PENDING", "LEFT OUT"];
    heads.extend(has_newer.then_some("NEWER"));
    heads.extend(["ORDERS", "WHO"]);
    screen.print(&table(&heads, &rows))?;
    ways(info).iter().try_for_each(|way| screen.print(&format!("{way}\n")))?;
    Ok(())
}

/// How a rollout stands, in a line.
fn standing(info: &RolloutInfo) -> String {
    let head = format!("rollout {}, {}", info.short, escape_line(&info.what));
    let all = info.waves.len().max(1);
    let wave = format!("wave {} of {all}", info.wave);
    let stands = match info.state.as_str() {
        "stopped" => format!("stopped at {wave}: {}", escape_line(&info.why)),
        "running" | "paused" => {
            let stage = match info.stage.as_str() {
                "soaking" => format!("soaks for {}", show_duration(until(info.soaks_until_ms))),
                "checking" => "its check runs".into(),
                "waiting" => format!("begins in {}", show_duration(until(info.begins_ms))),
                "due" => "is to be given".into(),
                _ => "goes on".into(),
            };
            let back = match info.taken_back {
                0 => String::new(),
                n => format!("; taken back from {} that had not begun", show_count(n)),
            };
            format!("{}: {wave} {stage}{back}", info.state)
        }
        state => format!("{state} after {}", show_duration(since(info.issued_ms))),
    };
    match info.left_out.is_empty() {
        true => format!("{head}: {stands}"),
        false => format!("{head}: {stands}; left out: {}", info.left_out.join(", ")),
    }
}

/// The commands by which a rollout goes on.
fn ways(info: &RolloutInfo) -> Vec<String> {
    let short = &info.short;
    let way = |command: &str, what: &str| format!("  {command:<36} {what}");
    let resume = format!("barid rollout resume {short}");
    match info.state.as_str() {
        "stopped" => {
            let mut ways = vec![
                way(&resume, "goes on here: whoever is not ok gets it again, then the gate"),
                way(&format!("{resume} --accept"), "takes this wave as it is, and opens the next"),
            ];
            // A file under control goes back by its own revisions.
            if info.kind == "push" {
                let rollback = format!("barid rollback {short}");
                ways.push(way(&rollback, "goes back to what was there before"));
            }
            ways
        }
        "paused" if info.taken_back > 0 => {
            vec![way(&resume, "goes on, and gives it again to those it was taken back from")]
        }
        "paused" => vec![way(&resume, "goes on")],
        "done" if !info.left_out.is_empty() => {
            vec![way(&resume, "gives it to the sites that were left out")]
        }
        _ => Vec::new(),
    }
}

/// Watches the rollout of this id.
pub(crate) async fn watch_id(
    client: &Client,
    screen: &mut Screen,
    id: &str,
) -> Result<Exit, Failure> {
    let info: RolloutInfo = client.get(&path(id, "")?).await?;
    watch(client, screen, &info, false).await
}

/// Watches a rollout until it has stopped or is over. Whoever watches may leave: it goes on.
pub(crate) async fn watch(
    client: &Client,
    screen: &mut Screen,
    begun: &RolloutInfo,
    quiet: bool,
) -> Result<Exit, Failure> {
    let mut told = String::new();
    let mut tries = 0;
    loop {
        let watching = follow(client, screen, begun, quiet, &mut told);
        let ended = tokio::select! {
            ended = watching => ended,
            _ = tokio::signal::ctrl_c() => {
                let short = &begun.short;
                screen.say(&format!("rollout {short} goes on: `barid rollout watch {short}`"))?;
                screen.help(&format!("`barid rollout pause {short}` or `abort {short}` end that"))?;
                return Ok(Exit::Detached);
            }
        };
        match ended {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => tries = 0,
            Err(failure) if is_broken(&failure) && tries < TRIES => tries += 1,
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(
    client: &Client,
    screen: &mut Screen,
    begun: &RolloutInfo,
    quiet: bool,
    told: &mut String,
) -> Result<Option<Exit>, Failure> {
    let mut lines = client.get_lines::<RolloutInfo>(&path(&begun.id, "/events")?).await?;
    while let Some(info) = lines.next().await? {
        if screen.json {
            screen.json(&info)?;
        } else if !quiet {
            let line = progress(&info);
            if !line.is_empty() && *told != line {
                screen.say(&line)?;
                *told = line;
            }
        }
        if !matches!(info.state.as_str(), "running" | "paused") {
            return ended(&info, screen, quiet).map(Some);
        }
    }
    Ok(None)
}

/// What there is to say while it goes on: a line for each stage, not for each answer.
fn progress(info: &RolloutInfo) -> String {
    let at = usize::try_from(info.wave).unwrap_or(1).saturating_sub(1);
    let Some(wave) = info.waves.get(at) else { return String::new() };
    let head = format!("wave {} of {}", info.wave, info.waves.len());
    let hosts = show_count(wave.hosts);
    let noun = if wave.hosts == 1 { "host" } else { "hosts" };
    let counts = [(wave.ok, "ok"), (wave.errors, "failed"), (wave.missed, "missed")];
    let counts = counts.iter().filter(|(n, _)| *n > 0);
    let counts: Vec<_> = counts.map(|(n, word)| format!("{} {word}", show_count(*n))).collect();
    let counts = counts.join(", ");
    let left_out = match info.left_out.is_empty() {
        true => String::new(),
        false => format!("; left out: {}", info.left_out.join(", ")),
    };
    match (info.state.as_str(), info.stage.as_str()) {
        ("running", "waiting") => {
            format!("begins at {}: barid rollout abort {}", show_time(info.begins_ms), info.short)
        }
        ("paused", "due" | "waiting") => {
            format!("paused before {head}: barid rollout resume {}", info.short)
        }
        ("paused", "given") if info.taken_back > 0 => {
            let (back, short) = (show_count(info.taken_back), &info.short);
            format!("paused in {head}: taken back from {back}: barid rollout resume {short}")
        }
        (_, "given") => match wave.orders.last() {
            Some(order) => format!("{head}: {hosts} {noun}: {} {order}{left_out}", info.kind),
            None => format!("{head}: nobody needs it{left_out}"),
        },
        (_, "soaking") => format!("{head}: {counts}; the gate holds, and soaks"),
        (_, "checking") => format!("{head}: {counts}; the check runs"),
        _ => String::new(),
    }
}

/// Says how it has ended, and what can be done.
fn ended(info: &RolloutInfo, screen: &mut Screen, quiet: bool) -> Result<Exit, Failure> {
    if !screen.json && !quiet {
        screen.say(&standing(info))?;
        for way in ways(info) {
            screen.say(&way)?;
        }
    }
    Ok(match info.state.as_str() {
        "done" if info.left_out.is_empty() => Exit::Ok,
        "aborted" => Exit::Cancelled,
        _ => Exit::Stopped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(state: &str, stage: &str) -> RolloutInfo {
        let wave = WaveInfo {
            hosts: 50,
            set: "web[1-50]".into(),
            ok: 47,
            errors: 3,
            missed: 0,
            pending: 0,
            left_out: 0,
            superseded: 0,
            orders: vec!["ab12cd".into()],
        };
        RolloutInfo {
            id: "0".repeat(26) + "7k3q2a",
            short: "7k3q2a".into(),
            kind: "push".into(),
            what: "/a -> /b".into(),
            gate: String::new(),
            hosts: 100,
            issued_ms: 0,
            ended_ms: 0,
            state: state.into(),
            stage: stage.into(),
            begins_ms: 0,
            soaks_until_ms: 0,
            why: if state == "stopped" { "3 of 50 hosts have failed".into() } else { "".into() },
            wave: 1,
            waves: vec![wave.clone(), wave],
            left_out: Vec::new(),
            taken_back: 0,
        }
    }

    #[test]
    fn a_stop_says_why_and_how_to_go_on() {
        let stopped = info("stopped", "");
        let expected =
            "rollout 7k3q2a, /a -> /b: stopped at wave 1 of 2: 3 of 50 hosts have failed";
        assert_eq!(standing(&stopped), expected);
        assert!(ways(&stopped)[0].trim_start().starts_with("barid rollout resume 7k3q2a "));
        assert_eq!(progress(&stopped), "");
        let left_out = RolloutInfo { left_out: vec!["lyon".into()], ..info("done", "") };
        assert!(standing(&left_out).ends_with("; left out: lyon") && !ways(&left_out).is_empty());
    }

    #[test]
    fn progress_is_a_line_for_each_stage() {
        assert_eq!(progress(&info("running", "given")), "wave 1 of 2: 50 hosts: push ab12cd");
        let soaking = progress(&info("running", "soaking"));
        assert_eq!(soaking, "wave 1 of 2: 47 ok, 3 failed; the gate holds, and soaks");
        assert!(progress(&info("paused", "due")).ends_with("barid rollout resume 7k3q2a"));
        let back = RolloutInfo { taken_back: 2, ..info("paused", "given") };
        let expected = "paused in wave 1 of 2: taken back from 2: barid rollout resume 7k3q2a";
        assert_eq!(progress(&back), expected);
        let expected = "wave 1 of 2 goes on; taken back from 2 that had not begun";
        assert!(standing(&back).ends_with(expected));
        assert!(ways(&back)[0].contains("gives it again"));
    }
}
