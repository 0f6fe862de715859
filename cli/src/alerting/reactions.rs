//! `barid alerts reactions`: what a node does by itself when an alert fires, and what came of it.

use std::path::PathBuf;

use alerts::{Reacted, ReactionInfo};

use crate::client::Client;
use crate::escape::escape_line;
use crate::exit::Exit;
use crate::fail::Failure;
use crate::render::table;
use crate::screen::Screen;
use crate::units::{show_duration, since};

/// Lists what is declared at the controller, or at the node of this state folder.
pub(crate) async fn list(
    state: Option<PathBuf>,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let overview = super::overview(state, client).await?;
    if screen.json {
        screen.json(&overview.reactions)?;
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = overview.reactions.iter().map(row).collect();
    screen.print(&table(&["NAME", "FOR", "DOES", "LIMIT", "LAST", "HELD"], &rows))?;
    for (reaction, text) in overview.reactions.iter().filter_map(trouble) {
        screen.warn(&format!("reaction {}: {}", reaction.name, escape_line(&text)))?;
    }
    if rows.is_empty() {
        screen.help("nothing is done by itself: docs/operations.md says what alerts.toml holds")?;
    }
    Ok(Exit::Ok)
}

fn ago(what: &Reacted) -> String {
    format!("{} ago", show_duration(since(what.at_ms)))
}

fn row(reaction: &ReactionInfo) -> Vec<String> {
    let mut of = reaction.kinds.join(",");
    if !reaction.sites.is_empty() {
        of.push_str(&format!(" at {}", reaction.sites.join(",")));
    }
    if reaction.severity != "info" {
        of.push_str(&format!(", {}", reaction.severity));
    }
    let per = show_duration(std::time::Duration::from_secs(reaction.per_s));
    let limit = format!("{} of {} in {per}", reaction.begun, reaction.most);
    let last = match &reaction.last {
        _ if reaction.goes_on => "goes on".into(),
        None => "never".into(),
        Some(last) => format!("{} {}", last.state, ago(last)),
    };
    let held = match &reaction.held {
        None => "-".into(),
        Some(held) => format!("{}, {}: {}", reaction.held_count, ago(held), held.text),
    };
    let texts = [&reaction.name, &of, &reaction.does, &limit, &last, &held];
    texts.map(|text| escape_line(text).into_owned()).into()
}

/// Why a reaction has last failed, if it has.
fn trouble(reaction: &ReactionInfo) -> Option<(&ReactionInfo, String)> {
    let last = reaction.last.as_ref().filter(|last| last.state == "failed")?;
    Some((reaction, format!("failed for {}: {}", last.alert, last.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_it_does_how_often_and_what_has_come_of_it() {
        let mut reaction = ReactionInfo {
            name: "restart".into(),
            kinds: vec!["errors-many".into(), "host-lost".into()],
            sites: vec!["lyon".into()],
            severity: "critical".into(),
            does: "run \u{1b}[2J at web[1-3]".into(),
            most: 2,
            per_s: 3600,
            ..ReactionInfo::default()
        };
        let never = row(&reaction);
        let expected =
            ["errors-many,host-lost at lyon, critical", "0 of 2 in 1 h 0 m", "never", "-"];
        assert_eq!([&never[1], &never[3], &never[4], &never[5]], expected);
        assert!(!never[2].contains('\u{1b}'), "{never:?}");
        let at_ms = crate::units::millis(since(0)) - 61_000;
        let (alert, text) = ("host-lost/web1".to_owned(), "no such set".to_owned());
        let last = Reacted { state: "failed".into(), at_ms, alert, text };
        reaction.held = Some(Reacted { text: "enough".into(), ..last.clone() });
        (reaction.last, reaction.held_count) = (Some(last), 7);
        let then = row(&reaction);
        assert!(then[4].starts_with("failed 1 m") && then[4].ends_with(" ago"), "{then:?}");
        assert!(then[5].starts_with("7, 1 m") && then[5].ends_with(": enough"), "{then:?}");
        let (_, text) = trouble(&reaction).expect("it has failed");
        assert_eq!(text, "failed for host-lost/web1: no such set");
        reaction.goes_on = true;
        assert_eq!(row(&reaction)[4], "goes on");
    }
}
