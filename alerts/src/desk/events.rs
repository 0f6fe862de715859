//! What alerts have become, in the words of the node's events and of its log.

use mesh::alerts::{Alert, Condition, Phase, Severity};
use mesh::{Class, Kind};
use tracing::{info, warn};

/// An alert as an event: the words of its cause, which no report takes for another trouble.
pub(super) fn event(condition: &Condition, fires: bool) -> (Kind, String) {
    let class = match condition.kind.as_str() {
        "host-lost" => Class::Down,
        "relay-lost" | "below-lost" | "parent-lost" => Class::Relay,
        "disk-low" => Class::Space,
        _ => Class::Controller,
    };
    let subject = match (condition.kind.as_str(), fires) {
        ("channel-failing", true) => "alert.channel-failed",
        (_, true) => "alert.firing",
        (_, false) => "alert.resolved",
    };
    let severity = match condition.severity {
        _ if !fires => mesh::Severity::Info,
        Severity::Info => mesh::Severity::Info,
        Severity::Warning => mesh::Severity::Warning,
        Severity::Critical => mesh::Severity::Error,
    };
    let text = format!("{}: {}", condition.kind, condition.summary);
    (Kind { subject, severity, class }, text)
}

/// `audience`: whether anybody else is told.
pub(super) fn log(alert: &Alert, audience: bool) {
    let (key, summary) = (&alert.condition.key, &alert.condition.summary);
    match alert.phase {
        Phase::Firing if alert.told.is_none() => warn!(key, summary, "alert"),
        Phase::Over if alert.told.is_some() || !audience && alert.fired.is_some() => {
            info!(key, summary, "alert over");
        }
        _ => {}
    }
}
