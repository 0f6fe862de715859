//! `--plan`: who an order would be for, who of them cannot be reached now, the way there and what
//! it costs. Nothing is done.

use controller::types::{Plan, PlanLink, PlanQuery};

use crate::client::Client;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::units::{show_bytes, show_count};

/// How many links are listed.
const LINKS_SHOWN: usize = 40;

/// Asks what an order would do, and shows it.
pub(crate) async fn show(
    client: &Client,
    screen: &mut Screen,
    query: &PlanQuery,
) -> Result<Exit, Failure> {
    let plan: Plan = client.post("/v1/plan", query).await?;
    if screen.json {
        screen.json(&plan)?;
        return Ok(Exit::Ok);
    }
    screen.print(&format!("{}\n", plan.set))?;
    let rows: Vec<Vec<String>> = plan.links.iter().take(LINKS_SHOWN).map(row).collect();
    screen.print(&format!("\n{}", table(&["VIA", "SITE", "TARGETS", "DOWN", "RTT"], &rows)))?;
    if let Some(more) = plan.links.len().checked_sub(LINKS_SHOWN).filter(|more| *more > 0) {
        screen.print(&format!("and {more} more links\n"))?;
    }
    screen.print(&format!("\n{}", words(&plan, matches!(query, PlanQuery::Push(_)))))?;
    let count = plan.hosts.len() as u64;
    let noun = if count == 1 { "target" } else { "targets" };
    let done = match query {
        PlanQuery::Run(_) => "nothing was run",
        PlanQuery::Push(_) => "nothing was pushed",
    };
    screen.say(&format!("{} {noun}; {done}", show_count(count)))?;
    Ok(Exit::Ok)
}

fn row(link: &PlanLink) -> Vec<String> {
    let text = |text: &str, none: &str| if text.is_empty() { none } else { text }.to_owned();
    let rtt = match link.rtt_us {
        0 => "-".into(),
        us => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
    };
    let counts = [link.targets, link.down].map(show_count);
    let [targets, down] = counts;
    vec![text(&link.via, "no way known"), text(&link.site, "-"), targets, down, rtt]
}

/// What is to be said apart from the ways.
fn words(plan: &Plan, is_push: bool) -> String {
    let mut text = String::new();
    match plan.down_count {
        0 => text.push_str("all can be reached now\n"),
        n => text.push_str(&format!("unreachable now: {} ({})\n", plan.down, show_count(n))),
    }
    if !plan.relays.is_empty() {
        text.push_str(&format!("relays among them: {}\n", plan.relays));
    }
    let links = plan.links.iter().filter(|link| !link.via.is_empty()).count() as u64;
    let over = match links {
        1 => "over this link".to_owned(),
        n => format!("over each of these {} links", show_count(n)),
    };
    match plan.order_bytes {
        Some(bytes) => text.push_str(&format!(
            "cost: the order is {} and goes {over} once; equal answers come back once\n",
            show_bytes(bytes)
        )),
        None if is_push => {
            text.push_str(&format!("cost: what is missing there goes {over} once\n"));
        }
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_who_is_missing_and_what_it_costs() {
        let link = |via: &str, targets, down, rtt_us| PlanLink {
            via: via.into(),
            site: String::new(),
            targets,
            down,
            rtt_us,
        };
        let mut plan = Plan {
            hosts: vec!["a1".into(), "a2".into()],
            set: "a[1-2]".into(),
            down: "a2".into(),
            down_count: 1,
            relays: String::new(),
            links: vec![link("r", 2, 1, 12_345), link("", 1, 1, 0)],
            order_bytes: Some(300),
        };
        let text = words(&plan, false);
        assert!(text.contains("unreachable now: a2 (1)\n"), "{text}");
        assert!(text.contains("300 B and goes over this link once"), "{text}");
        assert!(!text.contains("relays"), "{text}");
        assert_eq!(row(&plan.links[0]), ["r", "-", "2", "1", "12.3 ms"]);
        assert_eq!(row(&plan.links[1]), ["no way known", "-", "1", "1", "-"]);
        (plan.down_count, plan.relays) = (0, "r".into());
        assert!(words(&plan, false).contains("all can be reached now\nrelays among them: r\n"));
    }
}
