//! `--plan`: who an order would be for, who of them cannot be reached now, the way there and what
//! it costs. Nothing is done.

use controller::types::{DistPlan, Plan, PlanLink, PlanQuery, PlanWave, PushStep, WavesPlan};

use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::push::warn_skipped;
use crate::render::table;
use crate::rollout::USUAL_GATE;
use crate::screen::Screen;
use crate::units::{show_bytes, show_count};

/// How many links are listed.
const LINKS_SHOWN: usize = 40;
/// How many files of a distribution are named.
const FILES_SHOWN: usize = 40;

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
    let mut heads = vec!["VIA", "SITE", "TARGETS", "DOWN", "RTT"];
    if plan.push.is_some() || plan.dist.is_some() {
        heads.push("BYTES");
    }
    screen.print(&format!("\n{}", table(&heads, &rows)))?;
    if let Some(more) = plan.links.len().checked_sub(LINKS_SHOWN).filter(|more| *more > 0) {
        screen.print(&format!("and {more} more links\n"))?;
    }
    screen.print(&format!("\n{}", words(&plan)))?;
    if let Some(push) = &plan.push {
        warn_skipped(screen, &push.skipped)?;
        for step in &push.steps {
            screen.print(&format!("\n{}", step_words(step)))?;
        }
    }
    if let Some(dist) = &plan.dist {
        dist.notes.iter().try_for_each(|note| screen.say(note))?;
        screen.print(&file_words(dist))?;
    }
    if let Some(waves) = &plan.waves {
        screen.print(&format!("\n{}", wave_words(waves)))?;
    }
    let count = plan.hosts.len() as u64;
    let noun = if count == 1 { "target" } else { "targets" };
    let done = match query {
        PlanQuery::Run(_) => "nothing was run",
        PlanQuery::Push(_) => "nothing was pushed",
        PlanQuery::Dist(_) => "nothing was distributed",
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
    let mut row = vec![text(&link.via, "no way known"), text(&link.site, "-"), targets, down, rtt];
    row.extend(link.bytes.map(show_bytes));
    row
}

/// What a distribution costs.
fn dist_words(plan: &Plan) -> String {
    let Some(dist) = &plan.dist else { return String::new() };
    if plan.hosts.is_empty() {
        return "nobody lacks anything\n".into();
    }
    let (files, orders) = (show_count(dist.files.len() as u64), show_count(dist.orders));
    let bytes = show_bytes(plan.order_bytes.unwrap_or_default());
    format!(
        "cost: {files} files in {orders} orders of {bytes} in all; what goes over a link goes \
             over it once\n"
    )
}

/// What changes for hosts that have the same tree now.
fn step_words(step: &PushStep) -> String {
    let (set, count) = (&step.set, show_count(step.count));
    let (changed_bytes, travels) = (show_bytes(step.changed_bytes), show_bytes(step.pack_bytes));
    if !step.known {
        return format!(
            "{set} ({count}): nothing is known of what is there; the whole tree, {changed_bytes}, \
             is {travels} on the way\n"
        );
    }
    let counts = [
        (step.added, "new"),
        (step.changed, "changed"),
        (step.described, "described otherwise"),
        (step.removed, "no longer in the source"),
    ];
    let counts = counts.iter().filter(|(n, _)| *n > 0);
    let counts: Vec<_> = counts.map(|(n, word)| format!("{} {word}", show_count(*n))).collect();
    if counts.is_empty() {
        return format!("{set} ({count}): nothing changes\n");
    }
    let counts = counts.join(", ");
    let mut text = format!("{set} ({count}): {counts}\n");
    text.push_str(&format!("  files that change have {changed_bytes}; {travels} travel\n"));
    for line in &step.changes {
        text.push_str(&format!("  {line}\n"));
    }
    let all = step.added + step.changed + step.described + step.removed;
    if let Some(more) = all.checked_sub(step.changes.len() as u64).filter(|more| *more > 0) {
        text.push_str(&format!("  and {} more\n", show_count(more)));
    }
    text
}

/// The files of a distribution.
fn file_words(dist: &DistPlan) -> String {
    let mut text = String::new();
    for file in dist.files.iter().take(FILES_SHOWN) {
        text.push_str(&format!("  {}\n", escape_line(file)));
    }
    if let Some(more) = dist.files.len().checked_sub(FILES_SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("  and {} more\n", show_count(more as u64)));
    }
    text
}

/// Who gets it when, and what must have become of a wave before the next one opens.
fn wave_words(plan: &WavesPlan) -> String {
    let row = |(at, wave): (usize, &PlanWave)| {
        let (count, down) = (show_count(wave.count), show_count(wave.down_count));
        vec![(at + 1).to_string(), count, down, wave.set.clone()]
    };
    let rows: Vec<Vec<String>> = plan.waves.iter().enumerate().map(row).collect();
    let gate = if plan.gate.is_empty() { USUAL_GATE } else { &plan.gate };
    let heads = ["WAVE", "HOSTS", "DOWN", "WHO"];
    format!("{}each wave opens after the gate: {}\n", table(&heads, &rows), escape_line(gate))
}

/// What is to be said apart from the ways.
fn words(plan: &Plan) -> String {
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
    match (&plan.push, plan.order_bytes) {
        _ if plan.dist.is_some() => text.push_str(&dist_words(plan)),
        (Some(push), order) => text.push_str(&format!(
            "cost: {} files with {}; what goes over a link goes over it once, the order of {} \
             included; hosts that are not as they were left ask for more\n",
            show_count(push.files),
            show_bytes(push.bytes),
            show_bytes(order.unwrap_or_default())
        )),
        (None, Some(bytes)) => text.push_str(&format!(
            "cost: the order is {} and goes {over} once; equal answers come back once\n",
            show_bytes(bytes)
        )),
        (None, None) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_names_what_changes() {
        let mut step = PushStep {
            set: "a[1-2]".into(),
            count: 2,
            known: true,
            added: 1,
            changed: 0,
            described: 0,
            removed: 2,
            changes: vec!["+ x".into(), "- y".into()],
            changed_bytes: 4096,
            pack_bytes: 100,
        };
        let expected = "a[1-2] (2): 1 new, 2 no longer in the source\n  files that change have \
                        4.0 KiB; 100 B travel\n  + x\n  - y\n  and 1 more\n";
        assert_eq!(step_words(&step), expected);
        (step.added, step.removed) = (0, 0);
        assert_eq!(step_words(&step), "a[1-2] (2): nothing changes\n");
        step.known = false;
        assert!(step_words(&step).contains("nothing is known"));
    }

    #[test]
    fn says_who_is_missing_and_what_it_costs() {
        let link = |via: &str, targets, down, rtt_us| PlanLink {
            via: via.into(),
            site: String::new(),
            targets,
            down,
            rtt_us,
            bytes: None,
        };
        let mut plan = Plan {
            hosts: vec!["a1".into(), "a2".into()],
            set: "a[1-2]".into(),
            down: "a2".into(),
            down_count: 1,
            relays: String::new(),
            links: vec![link("r", 2, 1, 12_345), link("", 1, 1, 0)],
            order_bytes: Some(300),
            push: None,
            dist: None,
            waves: None,
            rooms: Vec::new(),
        };
        let text = words(&plan);
        assert!(text.contains("unreachable now: a2 (1)\n"), "{text}");
        assert!(text.contains("300 B and goes over this link once"), "{text}");
        assert!(!text.contains("relays"), "{text}");
        assert_eq!(row(&plan.links[0]), ["r", "-", "2", "1", "12.3 ms"]);
        assert_eq!(row(&plan.links[1]), ["no way known", "-", "1", "1", "-"]);
        (plan.down_count, plan.relays) = (0, "r".into());
        assert!(words(&plan).contains("all can be reached now\nrelays among them: r\n"));
        plan.links[0].bytes = Some(2048);
        assert_eq!(row(&plan.links[0])[5], "2.0 KiB");
        let (files, notes) = (vec!["cc.adm:/etc/motd".into()], Vec::new());
        plan.dist = Some(DistPlan { files, orders: 2, notes });
        assert!(words(&plan).contains("cost: 1 files in 2 orders of 300 B"));
        plan.hosts.clear();
        assert!(words(&plan).contains("nobody lacks anything\n"));
    }

    #[test]
    fn waves_are_told_with_who_is_down() {
        let wave = |set: &str, count, down_count| PlanWave {
            set: set.into(),
            count,
            down: String::new(),
            down_count,
        };
        let waves = vec![wave("a1", 1, 0), wave("a[2-9]", 8, 3)];
        let plan = WavesPlan { gate: "soak=10m".into(), waves };
        let expected = "WAVE  HOSTS  DOWN  WHO\n1     1      0     a1\n2     8      3     a[2-9]\n\
                        each wave opens after the gate: soak=10m\n";
        assert_eq!(wave_words(&plan), expected);
        let usual = wave_words(&WavesPlan { gate: String::new(), ..plan });
        assert!(usual.ends_with("errors<=1% missed<=10%\n"), "{usual}");
    }
}
