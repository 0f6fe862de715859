//! What operators ask of the desk, and what they want of it.

use std::sync::Arc;

use mesh::Time;
use mesh::alerts::{AckError, Alert, Condition, Phase};
use tokio::task::JoinHandle;

use super::worker::Worker;
use super::{AskError, Reply};
use crate::clock::to_ms;
use crate::courier::Courier;
use crate::info::{AlertInfo, ChannelInfo, Overview};
use crate::keep::{Change, SilenceRow};
use crate::message::{Message, short, word};
use crate::rules::Rule;

impl Worker {
    pub(super) fn list(&self, now: Time) -> Overview {
        let alerts = self.engine.alerts().map(|alert| self.asked(now, alert)).collect();
        let silences = self.engine.silences().iter().map(SilenceRow::from).collect();
        let channel = |(name, (courier, _)): (&String, &(Arc<Courier>, JoinHandle<()>))| {
            let health = courier.health();
            ChannelInfo {
                name: name.clone(),
                kind: courier.way.channel.kind().into(),
                waiting: courier.outbox.count().0,
                sent: health.sent,
                refused: health.refused,
                failing_ms: health.failing.map_or(0, to_ms),
                error: health.error.clone(),
            }
        };
        let channels = self.couriers.iter().map(channel).collect();
        Overview { alerts, silences, channels, reactions: self.reactions(now) }
    }

    fn asked(&self, now: Time, alert: &Alert) -> AlertInfo {
        let Condition { key, kind, group, severity, labels, summary, cause, .. } =
            alert.condition.clone();
        let silence = self.engine.silences().covering(now, alert);
        AlertInfo {
            id: short(&key),
            severity: word(severity).into(),
            state: match alert.phase {
                Phase::Pending => "pending",
                Phase::Firing => "firing",
                Phase::Over => "over",
            }
            .into(),
            help: Rule::of(&kind).map_or("", |rule| rule.help).into(),
            key,
            kind,
            group,
            labels,
            summary,
            began_ms: to_ms(alert.began),
            fired_ms: alert.fired.map_or(0, to_ms),
            ended_ms: alert.ended.map_or(0, to_ms),
            told_ms: alert.told.map_or(0, to_ms),
            flapping: alert.is_flapping(now, self.settings.pace.damp),
            inhibited_by: cause.filter(|_| alert.is_inhibited()),
            silenced_by: silence.map(|silence| silence.id.clone()),
            acked_by: alert.ack.as_ref().map(|ack| ack.by.clone()),
            note: alert.ack.as_ref().map_or_else(String::new, |ack| ack.note.clone()),
        }
    }

    pub(super) fn ack(
        &mut self,
        now: Time,
        name: &str,
        by: &str,
        note: &str,
    ) -> Result<AlertInfo, AskError> {
        let unknown = || AskError::Unknown { what: "alert", name: name.into() };
        let meant = |key: &str| key == name || name.len() >= 4 && short(key).starts_with(name);
        let found = self.engine.alerts().map(|a| &a.condition.key).find(|key| meant(key));
        let key = found.ok_or_else(unknown)?.clone();
        self.engine.ack(now, &key, by, note).map_err(|error| match error {
            AckError::Unknown => unknown(),
            AckError::Over => AskError::Over(key.clone()),
        })?;
        let alert = self.engine.alert(&key).ok_or_else(unknown)?;
        Ok(self.asked(now, alert))
    }

    pub(super) fn silence(
        &mut self,
        now: Time,
        mut row: SilenceRow,
    ) -> Result<SilenceRow, AskError> {
        let text = serde_json::to_string(&row).unwrap_or_default();
        row.id = short(&format!("{text}{}", now.0.as_nanos()));
        if !self.engine.silence(now, row.clone().into()) {
            return Err(AskError::Full);
        }
        self.change(Change::Silence(row.id.clone(), Some(Box::new(row.clone()))));
        Ok(row)
    }

    pub(super) fn test(&self, name: String, reply: Reply<Result<(), AskError>>) {
        let Some(courier) = self.couriers.get(&name).map(|(courier, _)| courier.clone()) else {
            let unknown = AskError::Unknown { what: "channel", name };
            return drop(reply.send(Err(unknown)));
        };
        let at_ms = to_ms(self.clock.now());
        let message = Message::plain(&self.setup.from, "test", "this is a test", at_ms);
        tokio::spawn(async move {
            let sent = courier.send(&message).await;
            if sent.is_ok() {
                courier.again.notify_one();
            }
            let failed = |error: crate::SendError| {
                let error = error.to_string();
                AskError::Channel { name: courier.name.clone(), error }
            };
            reply.send(sent.map_err(failed)).ok();
        });
    }
}
