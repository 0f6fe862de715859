//! Alerts and channels as figures on a node's page of metrics.

use std::collections::BTreeMap;

use metrics::{Page, Unit};

use crate::info::{ChannelInfo, Overview};

/// Channels that are told apart; there are as many as the settings have.
const CHANNELS: usize = 64;
const STATES: [&str; 2] = ["pending", "firing"];
const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

impl Overview {
    /// Puts what is wrong, and how the channels do, on a page.
    pub fn put(&self, page: &mut Page) {
        let help = "Alerts that are not over; inhibited ones wait for a larger cause to be told";
        let alerts = page.gauge(Unit::None, "barid_alerts", help);
        for state in STATES {
            for severity in SEVERITIES {
                let of = self.alerts.iter();
                let count = of.filter(|a| a.state == state && a.severity == severity).count();
                alerts.put(&[("state", state), ("severity", severity)], count as f64);
            }
        }
        let help = "Alerts that fire, by kind";
        let kinds = page.gauge(Unit::None, "barid_alerts_firing", help);
        let mut firing = BTreeMap::<&str, u32>::new();
        for alert in self.alerts.iter().filter(|alert| alert.state == "firing") {
            *firing.entry(&alert.kind).or_default() += 1;
        }
        for rule in &crate::rules::RULES {
            let count = firing.get(rule.kind).copied().unwrap_or_default();
            kinds.put(&[("kind", rule.kind)], f64::from(count));
        }
        let help = "Silences that have not ended";
        let silences = page.gauge(Unit::None, "barid_alert_silences", help);
        silences.put(&[], self.silences.len() as f64);
        for channel in self.channels.iter().take(CHANNELS) {
            put_channel(page, channel);
        }
    }
}

fn put_channel(page: &mut Page, channel: &ChannelInfo) {
    let name = channel.name.as_str();
    let help = "Messages that a channel was given, by what became of them";
    let messages = page.counter(Unit::None, "barid_alert_messages", help);
    for (result, count) in [("taken", channel.sent), ("refused", channel.refused)] {
        messages.put(&[("channel", name), ("result", result)], count as f64);
    }
    let help = "Messages that wait for a channel";
    let waiting = page.gauge(Unit::None, "barid_alert_messages_waiting", help);
    waiting.put(&[("channel", name)], channel.waiting as f64);
    let help = "Whether a channel takes nothing";
    let failing = page.gauge(Unit::None, "barid_alert_channel_failing", help);
    failing.put(&[("channel", name)], f64::from(u8::from(channel.failing_ms > 0)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AlertInfo;

    #[test]
    fn alerts_are_counted_and_not_named() {
        let alert = |state: &str, n: u32| AlertInfo {
            key: format!("host-lost/web{n}"),
            kind: "host-lost".into(),
            severity: "warning".into(),
            state: state.into(),
            ..AlertInfo::default()
        };
        let ops = ChannelInfo { name: "ops".into(), sent: 3, failing_ms: 7, ..Default::default() };
        let alerts = vec![alert("firing", 1), alert("firing", 2), alert("over", 3)];
        let overview = Overview { alerts, channels: vec![ops], ..Overview::default() };
        let mut page = Page::default();
        overview.put(&mut page);
        let text = page.text();
        for line in [
            "barid_alerts{state=\"firing\",severity=\"warning\"} 2",
            "barid_alerts{state=\"pending\",severity=\"info\"} 0",
            "barid_alerts_firing{kind=\"host-lost\"} 2",
            "barid_alerts_firing{kind=\"relay-lost\"} 0",
            "barid_alert_messages_total{channel=\"ops\",result=\"taken\"} 3",
            "barid_alert_channel_failing{channel=\"ops\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
        assert!(!text.contains("web1"), "{text}");
    }
}
