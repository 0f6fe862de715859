//! A crowd at a real relay is like as many real hosts: it is reachable, answers, and comes back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh::{HostId, State};
use protos::{Answer, OrderBody};
use simulations::crowd::{self, Crowd, Roll, Voice};
use tests::{Fleet, LIMIT, PACE, Spec, binary, show, wait_for};

const BEAT: Duration = Duration::from_millis(500);
const HOSTS: usize = 12;

fn names(count: usize) -> Vec<(String, String)> {
    (1..=count).map(|n| (format!("virtual{n}"), "site1".into())).collect()
}

fn answer(name: &str, _: &OrderBody) -> (State, Answer) {
    let stdout = if name.ends_with('2') { "two\n" } else { "other\n" };
    let (stdout, stdout_size) = (stdout.into(), stdout.len() as u64);
    (State::Ok, Answer { stdout, stdout_size, ..Answer::default() })
}

#[test]
fn a_crowd_answers_and_comes_back_when_its_relay_does() -> Result<()> {
    let mut roll = None;
    let mut fleet = Fleet::prepared(binary()?, PACE, &[], |state| {
        roll = Some(Roll::found(state, &names(HOSTS))?);
        Ok(())
    })?;
    let members = roll.context("the state was prepared")?.members;
    fleet.add(&Spec {
        role: "relay",
        name: "relay1".into(),
        site: "site1".into(),
        parents: vec!["controller".into()],
        config: String::new(),
    })?;
    let parent = fleet.listen("relay1")?.parse()?;
    let crowd = Crowd::start(vec![(parent, members)], BEAT, Arc::new(answer))?;
    for _ in 0..2 {
        fleet.wait_up(HOSTS as u64 + 1)?;
        let output = fleet.barid(&["run", "-w", "virtual[1-12]", "-b", "--", "anything"])?;
        let text = show(&output.stdout);
        assert!(output.status.success(), "{}{text}", show(&output.stderr));
        assert!(text.contains("virtual[2,12]") && text.contains("two"), "{text}");
        fleet.kill("relay1")?;
        wait_for("the crowd to notice", LIMIT, || Ok((crowd.linked() == 0).then_some(())))?;
        fleet.restart("relay1")?;
    }
    Ok(())
}

#[test]
fn a_voice_speaks_for_hosts_that_do_not_exist() -> Result<()> {
    const MANY: u32 = 3_000;
    let mut relay = None;
    let mut fleet = Fleet::prepared(binary()?, PACE, &[], |state| {
        relay = Some(crowd::enlist(state, &names(MANY as usize), "voice")?);
        Ok(())
    })?;
    let relay = relay.context("the state was prepared")?;
    let parent = fleet.listen("controller")?.parse()?;
    let said = |host: HostId, _: &OrderBody| format!("{} of its own\n", host.0).into();
    let voice = Voice::raise(relay, parent, MANY, BEAT, Arc::new(said))?;
    fleet.wait_up(u64::from(MANY) + 1)?;
    let output = fleet.barid(&["run", "-w", "virtual[1-3000]", "-b", "--", "anything"])?;
    assert!(output.status.success(), "{}", show(&output.stderr));
    let text = show(&output.stdout);
    assert_eq!(text.lines().filter(|line| line.ends_with("of its own")).count(), MANY as usize);
    drop(voice);
    fleet.wait_up(0)?;
    Ok(())
}
