//! Of whom nothing is heard, and who has ended: `@stale` is not `@down`.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::{Fleet, show, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

fn fold(fleet: &Fleet, set: &str) -> Result<String> {
    let output = fleet.barid(&["nodes", "fold", "-w", set])?;
    let said = show(&output.stderr);
    if said.contains("empty set") {
        return Ok(String::new());
    }
    ensure!(output.status.success(), "{set}: {said}");
    Ok(show(&output.stdout).trim().to_owned())
}

/// Waits until these are stale, these are down and these are up.
fn wait(fleet: &Fleet, stale: &str, down: &str, up: &str) -> Result<()> {
    let wanted =
        [stale, down, up].map(|set| if set.is_empty() { Ok(set.into()) } else { fold(fleet, set) });
    let wanted: Vec<String> = wanted.into_iter().collect::<Result<_>>()?;
    let mut seen = Vec::new();
    let found = wait_for("the sets by state", LIMIT, || {
        let sets = ["@stale", "@down", "@up"].map(|set| fold(fleet, set));
        seen = sets.into_iter().collect::<Result<Vec<_>>>()?;
        Ok((seen == wanted).then_some(()))
    });
    ensure!(found.is_ok(), "stale, down and up are {seen:?}, not {wanted:?}");
    Ok(())
}

#[test]
fn who_is_silent_is_stale_and_who_has_ended_is_not() -> Result<()> {
    let mut fleet = Fleet::tree(2, 3)?;
    wait(&fleet, "", "", "site[1-2]-host[1-3]")?;

    // A host that stands still has not said goodbye.
    fleet.signal("site1-host1", Signal::STOP)?;
    wait(&fleet, "site1-host1", "site1-host1", "site1-host[2-3],site2-host[1-3]")?;
    let state = &fleet.json(&["hosts", "--json", "-w", "site1-host1"])?[0];
    ensure!(state["up"] == false && state["stale"] == true, "{state}");

    // One that is stopped as it should be has.
    fleet.signal("site1-host2", Signal::TERM)?;
    wait(&fleet, "site1-host1", "site1-host[1-2]", "site1-host3,site2-host[1-3]")?;

    // Of those behind a relay that stands still nobody knows anything.
    fleet.signal("site2-relay", Signal::STOP)?;
    wait(&fleet, "site1-host1,site2-host[1-3]", "site1-host[1-2],site2-host[1-3]", "site1-host3")?;

    // The same if it ended: who would know of its hosts is away.
    fleet.kill("site2-relay")?;
    fleet.signal("site1-relay", Signal::TERM)?;
    let stale = "site[1-2]-host[1-3]";
    wait(&fleet, stale, stale, "")?;

    // Whoever comes back is none of it.
    fleet.kill("site1-relay")?;
    fleet.kill("site1-host2")?;
    fleet.restart("site1-relay")?;
    fleet.restart("site2-relay")?;
    fleet.restart("site1-host2")?;
    fleet.signal("site1-host1", Signal::CONT)?;
    wait(&fleet, "", "", "site[1-2]-host[1-3]")
}
