//! What is sent: one message for what is new in a group, in the form that commands and files get.
//!
//! A message has an id that is the same whenever the same news are sent, so that who receives it
//! twice can know.

use std::collections::BTreeMap;

use mesh::alerts::{Alert, News, Notice, Severity};
use serde::{Deserialize, Serialize};

use crate::clock::to_ms;
use crate::rules::Rule;

/// Who sends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The name of the node.
    pub node: String,
    /// Its mesh.
    pub mesh: String,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The version of this form.
    pub version: u32,
    /// Equal for equal news.
    pub id: String,
    /// `firing`, `resolved`, `test`, `alive` or `report`.
    pub status: String,
    /// Who sends.
    pub from: Sender,
    /// What the alerts have in common: the site.
    pub group: String,
    /// When it was made, in unix milliseconds.
    pub at_ms: u64,
    /// The alerts, the worst first.
    pub alerts: Vec<Told>,
    /// How many more there were.
    #[serde(default)]
    pub more: usize,
    /// How many older messages of this channel were dropped before this one.
    #[serde(default)]
    pub dropped: u64,
    /// The report that this is, if it is one; then there are no alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Written>,
}

/// A report of a while that is over, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// `hour` or `day`.
    pub kind: String,
    /// It in one line.
    pub subject: String,
    /// The whole of it.
    pub text: String,
    /// From when on it tells, in unix milliseconds.
    pub start_ms: u64,
    /// Until when.
    pub end_ms: u64,
}

/// An alert as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What tells it from others.
    pub key: String,
    /// The same, short.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// `firing` or `resolved`.
    pub status: String,
    /// Whether this was told before and goes on.
    #[serde(default)]
    pub again: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It in one line.
    pub summary: String,
    /// What to do.
    pub help: String,
    /// Since when it is so.
    pub began_ms: u64,
    /// Since when it is not so any more; 0 while it is.
    #[serde(default)]
    pub ended_ms: u64,
}

/// A short name for a key, for people to type.
pub fn short(key: &str) -> String {
    blake3::hash(key.as_bytes()).to_hex()[..8].to_owned()
}

/// A severity as a word.
pub(crate) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

impl Message {
    /// What a channel is sent of a notice, and of that the first `most`; none if nothing of it goes
    /// that way.
    pub(crate) fn of(
        from: &Sender,
        notice: &Notice,
        at_ms: u64,
        most: usize,
        passes: impl Fn(&Alert) -> bool,
    ) -> Option<Message> {
        let mut passing = notice.alerts.iter().filter(|(_, alert)| passes(alert));
        let first = passing.by_ref().take(most);
        let alerts: Vec<Told> = first.map(|(news, alert)| told(*news, alert)).collect();
        let more = passing.count();
        if alerts.is_empty() {
            return None;
        }
        let firing = alerts.iter().any(|told| told.status == "firing");
        Some(Message {
            version: 1,
            id: id(from, &alerts, at_ms),
            status: if firing { "firing" } else { "resolved" }.into(),
            from: from.clone(),
            group: notice.group.clone(),
            at_ms,
            alerts,
            more,
            dropped: 0,
            report: None,
        })
    }

    /// What is said of an alert that begins to fire, to whoever is to do something about it.
    pub(crate) fn firing(from: &Sender, alert: &Alert, at_ms: u64) -> Message {
        let alerts = vec![told(News::Firing, alert)];
        Message {
            version: 1,
            id: id(from, &alerts, at_ms),
            status: "firing".into(),
            from: from.clone(),
            group: alert.condition.group.clone(),
            at_ms,
            alerts,
            more: 0,
            dropped: 0,
            report: None,
        }
    }

    /// A message that is no alert: `test` or `alive`.
    pub fn plain(from: &Sender, status: &str, summary: &str, at_ms: u64) -> Message {
        let kind = match status {
            "alive" => "barid-alive",
            _ => "barid-test",
        };
        let told = Told {
            key: kind.into(),
            id: short(kind),
            kind: kind.into(),
            severity: "info".into(),
            status: "firing".into(),
            again: false,
            labels: BTreeMap::from([("node".into(), from.node.clone())]),
            summary: summary.into(),
            help: String::new(),
            began_ms: at_ms,
            ended_ms: 0,
        };
        let alerts = vec![told];
        Message {
            version: 1,
            id: id(from, &alerts, at_ms),
            status: status.into(),
            from: from.clone(),
            group: String::new(),
            at_ms,
            alerts,
            more: 0,
            dropped: 0,
            report: None,
        }
    }

    /// One alert, told by somebody who is not a desk.
    pub fn of_one(from: &Sender, group: &str, told: Told, at_ms: u64) -> Message {
        let alerts = vec![told];
        Message {
            version: 1,
            id: id(from, &alerts, at_ms),
            status: alerts[0].status.clone(),
            from: from.clone(),
            group: group.into(),
            at_ms,
            alerts,
            more: 0,
            dropped: 0,
            report: None,
        }
    }

    /// A report. Its id is that of what it tells, whenever it is made.
    pub(crate) fn report(from: &Sender, written: Written, at_ms: u64) -> Message {
        let key = format!("report/{}/{}/{}", written.kind, written.start_ms, written.end_ms);
        let of = Told { key, ..Message::plain(from, "test", "", 0).alerts.remove(0) };
        Message {
            version: 1,
            id: id(from, &[Told { kind: "report".into(), ..of }], 0),
            status: "report".into(),
            from: from.clone(),
            // A thread of its own for each kind.
            group: format!("report {}", written.kind),
            at_ms,
            alerts: Vec::new(),
            more: 0,
            dropped: 0,
            report: Some(written),
        }
    }

    /// It in one line.
    pub(crate) fn line(&self) -> String {
        if let Some(report) = &self.report {
            return report.subject.clone();
        }
        let first = self.alerts.first().map_or("", |told| told.summary.as_str());
        let rest = self.alerts.len().saturating_sub(1) + self.more;
        let over = if self.status == "resolved" { "over: " } else { "" };
        let site = if self.group.is_empty() { String::new() } else { format!("{}: ", self.group) };
        match rest {
            0 => format!("{site}{over}{first}"),
            rest => format!("{site}{over}{first} (and {rest} more)"),
        }
    }
}

fn told(news: News, alert: &Alert) -> Told {
    let condition = &alert.condition;
    Told {
        key: condition.key.clone(),
        id: short(&condition.key),
        kind: condition.kind.clone(),
        severity: word(condition.severity).into(),
        status: if news == News::Over { "resolved" } else { "firing" }.into(),
        again: news == News::Again,
        labels: condition.labels.clone(),
        summary: condition.summary.clone(),
        help: Rule::of(&condition.kind).map_or("", |rule| rule.help).into(),
        began_ms: to_ms(alert.began),
        ended_ms: match news {
            News::Over => alert.ended.map_or(0, to_ms),
            _ => 0,
        },
    }
}

/// The same for the same news: a repetition is others, and so is another firing.
fn id(from: &Sender, alerts: &[Told], at_ms: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(&from.mesh);
    add(&from.node);
    for told in alerts {
        add(&told.key);
        add(&told.status);
        add(&told.began_ms.to_string());
        if told.again || told.kind.starts_with("barid-") {
            add(&at_ms.to_string());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use mesh::Time;
    use mesh::alerts::{Condition, Phase};

    use super::*;

    #[test]
    fn each_channel_counts_its_own() {
        let alert = |n: u32| {
            let condition = Condition {
                key: format!("host-lost/{n:03}"),
                kind: "host-lost".into(),
                group: "lyon".into(),
                severity: if n < 5 { Severity::Critical } else { Severity::Warning },
                labels: BTreeMap::new(),
                summary: String::new(),
                hold: std::time::Duration::ZERO,
                cause: None,
            };
            (News::Firing, Alert::kept(condition, "tree".into(), Phase::Firing, Time::ZERO))
        };
        let notice = Notice { group: "lyon".into(), alerts: (0..12).map(alert).collect() };
        let check = |worst, expected| {
            let passes = |alert: &Alert| alert.condition.severity <= worst;
            let message = Message::of(&Sender::default(), &notice, 7, 4, passes);
            let said = message.map(|m| (m.alerts[0].key.clone(), m.alerts.len(), m.more));
            assert_eq!(said, expected);
        };
        check(Severity::Critical, Some(("host-lost/000".into(), 4, 8)));
        check(Severity::Warning, Some(("host-lost/005".into(), 4, 3)));
        check(Severity::Info, None);
    }
}
