//! The memory of `barid run -b` when very many hosts answer.
//!
//! The controller and the command are real; one virtual relay speaks for all hosts
//! (`simulations::crowd::Voice`). What is printed goes to a file.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh::HostId;
use protos::{OrderBody, Work};
use serde_json::Value;
use simulations::crowd::{self, Voice};
use tests::{Fleet, wait_for};

use crate::api::Api;
use crate::proc::{self, Memory};
use crate::table;

const BEAT: Duration = Duration::from_secs(5);
const LINK_LIMIT: Duration = Duration::from_secs(120);
/// For one command.
const LIMIT: Duration = Duration::from_secs(240);
/// What is printed: a name of the case, and how long the output of each host is.
const CASES: [(&str, usize); 4] = [
    ("the same line", 0),
    ("50 answers", 50),
    ("a line of its own", 60),
    ("1 kB of its own", 1_000),
];

/// Measures the command on so many answers.
pub(crate) fn measure(barid: &Path, work: &Path, hosts: u32) -> Result<()> {
    let names: Vec<_> = (1..=hosts).map(|n| (name(n), format!("site{}", n % 100))).collect();
    let mut relay = None;
    let fleet = Fleet::prepared(barid.to_owned(), tests::PACE, &[], |state| {
        relay = Some(crowd::enlist(state, &names, "voice")?);
        Ok(())
    })?;
    let relay = relay.context("the state was prepared")?;
    let parent = fleet.listen("controller")?.parse().context("where the controller listens")?;
    let _voice = Voice::raise(relay, parent, hosts, BEAT, Arc::new(said))?;
    let mut api = Api::connect(&fleet.state("controller").join("barid.sock"))?;
    wait_for("everybody to be reachable", LINK_LIMIT, || {
        let status: Value = api.ask("GET", "/v1/status", None)?;
        Ok((status["up"] == hosts + 1).then_some(()))
    })?;
    let mut rows = Vec::new();
    for (case, (what, _)) in CASES.iter().enumerate() {
        let out = work.join("viewer.out");
        let begun = Instant::now();
        let case = case.to_string();
        let args = ["run", "-w", "@role:host", "-b", "-t", "120s", "--", "print", &case];
        let mut command = fleet.command(&args);
        let mut child = command.stdout(File::create(&out)?).stderr(Stdio::null()).spawn()?;
        let (status, peak) = proc::to_its_end(&mut child, LIMIT)?;
        let took = begun.elapsed();
        ensure!(status.success(), "barid run, {what}: {status}");
        rows.push(vec![
            (*what).to_owned(),
            table::bytes(out.metadata()?.len()),
            table::time(took),
            table::memory(peak),
            table::memory(Memory::of(fleet.pid("controller")?)?.resident),
        ]);
    }
    table::heading(&format!("`barid run -b` when {hosts} hosts answer"));
    let head = ["each host prints", "printed", "time", "peak of the command", "controller, then"];
    table::print(&head, &rows);
    Ok(())
}

fn name(n: u32) -> String {
    format!("node{n:05}.rack{}", n % 400)
}

fn said(host: HostId, order: &OrderBody) -> bytes::Bytes {
    let Work::Run(run) = &order.work else { return bytes::Bytes::new() };
    let case = run.argv.get(1).and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    let text = match case.unwrap_or(0_usize) {
        0 => "the same\n".to_owned(),
        1 => format!("one of fifty: {}\n", host.0 % 50),
        case => {
            let size = CASES.get(case).map_or(0, |(_, size)| *size);
            let line = format!("{} has a serial number of its own\n", name(host.0));
            let mut text = line.clone();
            while text.len() < size {
                text += &line;
            }
            text
        }
    };
    text.into()
}
