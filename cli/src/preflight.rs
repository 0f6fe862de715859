//! Asking hosts whether they could take a push, before anything of its content travels.
//!
//! The idea: it is the push itself on terms that change nothing, so that a host judges by what it
//! has now: room, inodes, what is in the way, what would be deleted. Names and hashes travel, no
//! content. What keeps hosts from it is told by site, since it is a site's link that a push fills
//! in vain.
//!
//! It deliberately promises nothing: a disk may fill up a moment later, and hosts that are away
//! were not asked.

use std::collections::BTreeMap;

use controller::sets::fold;
use controller::types::{HostInfo, NewPush, Plan, PlanQuery, PlanRoom};

use crate::client::Client;
use crate::exit::{Class, Exit};
use crate::fail::Failure;
use crate::follow::{Ended, Follow};
use crate::gathered::Gathered;
use crate::push::{Given, ordered};
use crate::render::View;
use crate::screen::Screen;
use crate::units::{show_bytes, show_count};

/// So many reasons are named.
const SHOWN: usize = 20;

/// By site and reason: who is kept from it.
type Obstacles<'a> = BTreeMap<(&'a str, String), Vec<&'a str>>;

/// What asking has come to.
pub(crate) enum Asked {
    /// Nothing is in the way of the push; what hosts lack stands in the answers to this order.
    Clear { order: String },
    /// It is not to go out; so the process ends.
    Over(Exit),
}

/// Asks the targets of a push.
pub(crate) async fn ask(
    client: &Client,
    screen: &mut Screen,
    push: &NewPush,
    quiet: bool,
) -> Result<Asked, Failure> {
    let mut events = client.post_lines("/v1/pushes", &question(push)).await?;
    let Given::Order(order) = ordered(&mut events, screen, quiet, false).await? else {
        return Err(Failure::new(Exit::Failed, "answer", "the controller asks nobody in waves"));
    };
    drop(events);
    let (id, count) = (order.id.clone(), order.count);
    let view = View { quiet, ..View::default() };
    let mut follow = Follow::new(client, screen, view, *order)?;
    let ended = follow.watch_quietly().await?;
    let gathered = std::mem::take(&mut follow.gathered);
    drop(follow);
    match ended {
        Ended::Closed => {}
        Ended::Detached => {
            screen.say("nothing was pushed: not everybody has been asked yet")?;
            return Ok(Asked::Over(Exit::Detached));
        }
        Ended::Cancelled => return Ok(Asked::Over(Exit::Cancelled)),
    }
    let hosts: Vec<HostInfo> = client.get("/v1/hosts").await?;
    let sites = hosts.iter().map(|host| (host.name.as_str(), host.site.as_str())).collect();
    let (obstacles, missed) = judged(&gathered, &sites);
    if !missed.is_empty() && !quiet {
        let (missed, set) = (show_count(missed.len() as u64), fold(&missed));
        screen.warn(&format!("{missed} hosts could not be asked, and get it unasked: {set}"))?;
    }
    if obstacles.is_empty() {
        ask_relays(client, screen, push, &id).await?;
        return Ok(Asked::Clear { order: id });
    }
    for ((site, why), hosts) in obstacles.iter().take(SHOWN) {
        screen.warn(&format!("site {site}: {}: {why}", fold(hosts)))?;
    }
    if let Some(more) = obstacles.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        screen.warn(&format!("and {more} more reasons"))?;
    }
    let mut kept: Vec<_> = obstacles.into_values().flatten().collect();
    kept.sort_unstable();
    kept.dedup();
    let (hosts, total, set) = (show_count(kept.len() as u64), show_count(count), fold(&kept));
    let message = format!("{hosts} of {total} hosts cannot take it now; nothing was pushed");
    let help = format!("make room there, leave them out (-x '{set}'), or push without --preflight");
    Err(Failure::new(Exit::Failed, "preflight", message).with_help(help))
}

/// Asks the relays whether they have room for it. The push is packed for that, as it will be.
async fn ask_relays(
    client: &Client,
    screen: &mut Screen,
    push: &NewPush,
    asked: &str,
) -> Result<(), Failure> {
    let asked = Some(asked.to_owned());
    let query = PlanQuery::Push(Box::new(NewPush { preflight: true, asked, ..push.clone() }));
    let plan: Plan = client.post("/v1/plan", &query).await?;
    let full = |room: &&PlanRoom| room.room.is_some_and(|free| free < room.bytes);
    let full: Vec<_> = plan.rooms.iter().filter(full).collect();
    if full.is_empty() {
        return Ok(());
    }
    for PlanRoom { relay, site, bytes, room } in full.iter().take(SHOWN) {
        let (bytes, room) = (show_bytes(*bytes), show_bytes(room.unwrap_or_default()));
        let why =
            format!("no room in the content store: the push brings {bytes}, {room} would fit");
        screen.warn(&format!("site {site}: relay {relay}: {why}"))?;
    }
    let relays = match full.len() {
        1 => "a relay".into(),
        count => format!("{} relays", show_count(count as u64)),
    };
    let message = format!("{relays} cannot take it now; nothing was pushed");
    let help = "make room there (store_max_mib), or push without --preflight";
    Err(Failure::new(Exit::Failed, "preflight", message).with_help(help))
}

/// The push as a question.
fn question(push: &NewPush) -> NewPush {
    NewPush {
        verify: true,
        preflight: true,
        asked: None,
        // Nothing of these is done, and nobody is waited for.
        before: String::new(),
        after: String::new(),
        special: Vec::new(),
        rate: 0,
        max_link_bytes: None,
        begins: String::new(),
        waves: None,
        stage: false,
        all_at_once: true,
        hold_ms: push.reach_ms,
        ..push.clone()
    }
}

/// What keeps whom from it, and who has not been asked.
fn judged<'a>(
    gathered: &'a Gathered,
    sites: &BTreeMap<&'a str, &'a str>,
) -> (Obstacles<'a>, Vec<&'a str>) {
    let (mut obstacles, mut missed) = (Obstacles::new(), Vec::new());
    for group in gathered.groups() {
        let answer = group.answer;
        let reasons = match Class::of(&answer.state) {
            Class::Good => answer.warnings.clone(),
            Class::Missed | Class::Cancelled => {
                missed.extend(&group.hosts);
                continue;
            }
            Class::Failed if answer.fault.is_empty() => vec![answer.state.clone()],
            Class::Failed => vec![answer.fault.clone()],
        };
        for why in reasons {
            for host in &group.hosts {
                let site = sites.get(host).copied().unwrap_or("?");
                obstacles.entry((site, why.clone())).or_default().push(*host);
            }
        }
    }
    missed.sort_unstable();
    (obstacles, missed)
}

#[cfg(test)]
mod tests {
    use controller::types::Answer;

    use super::*;
    use crate::gathered::testing::answer;

    #[test]
    fn what_keeps_hosts_from_a_push_is_told_by_site() {
        let mut gathered = Gathered::default();
        gathered.add(answer("a1", "ok", None, ""));
        let full = || vec!["no room on /srv".to_owned()];
        gathered.add(Answer { warnings: full(), ..answer("a[2-3],b1", "ok", None, "") });
        gathered
            .add(Answer { fault: "verify: it broke".into(), ..answer("b2", "failed", None, "") });
        gathered.add(answer("b3", "not-reached", None, ""));
        let sites = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b"), ("b3", "b")];
        let sites = BTreeMap::from(sites);
        let (obstacles, missed) = judged(&gathered, &sites);
        let told: Vec<_> = obstacles
            .iter()
            .map(|((site, why), hosts)| (*site, why.as_str(), fold(hosts)))
            .collect();
        let expected = [
            ("a", "no room on /srv", "a[2-3]".to_owned()),
            ("b", "no room on /srv", "b1".to_owned()),
            ("b", "verify: it broke", "b2".to_owned()),
        ];
        assert_eq!(told, expected);
        assert_eq!(missed, ["b3"]);
    }
}
