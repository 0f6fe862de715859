//! Events on the wire.
//!
//! The signature does not travel: the receiver makes it of what the event says, so that nothing can
//! go under another's signature.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh::{
    Class, Digest, Fact, Folded, Frame, HostId, HostSet, LINE_BYTES, MOST, OrderId, Sample,
    Severity, TEXT_BYTES, is_subject,
};

use crate::field::{array, at_most, at_most_bytes, ensure, given, not_empty, plain, within};
use crate::{FieldError, hosts, pb};

/// Events in one frame.
const EVENTS: usize = 16_384;
/// Hosts in all events of a frame. A few ranges could say four billion.
const HOSTS: u64 = 131_072;

pub(crate) fn encode(no: u64, events: &[Folded]) -> pb::Events {
    pb::Events { no, events: events.iter().map(encode_folded).collect() }
}

pub(crate) fn decode(events: &pb::Events, hash: fn(&[u8]) -> Digest) -> Result<Frame, FieldError> {
    at_most("events.events", events.events.len(), EVENTS)?;
    let mut hosts = HOSTS;
    let folded = events.events.iter().map(|folded| decode_folded(folded, hash, &mut hosts));
    Ok(Frame::Events { no: events.no, events: folded.collect::<Result<_, _>>()? })
}

fn encode_folded(folded: &Folded) -> pb::Folded {
    let Folded { window, fact, sample, first_ms, last_ms, .. } = folded;
    let severity = match fact.severity {
        Severity::Info => pb::Severity::Info,
        Severity::Warning => pb::Severity::Warning,
        Severity::Error => pb::Severity::Error,
    };
    let class = match fact.class {
        Class::Down => pb::Class::Down,
        Class::Space => pb::Class::Space,
        Class::Command => pb::Class::Command,
        Class::Client => pb::Class::Client,
        Class::Relay => pb::Class::Relay,
        Class::Controller => pb::Class::Controller,
    };
    let sample = pb::Sample {
        host: sample.host.0,
        at_ms: sample.at_ms,
        line: sample.line.clone(),
        text: sample.text.clone(),
        order: sample.order.map(|order| Bytes::copy_from_slice(&order.0)),
    };
    let count = |(count, hosts): (u64, HostSet)| pb::Count { count, hosts: hosts::encode(&hosts) };
    pb::Folded {
        window: *window,
        subject: fact.subject.clone(),
        severity: severity.into(),
        class: class.into(),
        like: fact.like.clone(),
        sample: Some(sample),
        first_ms: *first_ms,
        last_ms: *last_ms,
        counts: folded.lines().into_iter().map(count).collect(),
    }
}

fn decode_folded(
    folded: &pb::Folded,
    hash: fn(&[u8]) -> Digest,
    hosts: &mut u64,
) -> Result<Folded, FieldError> {
    ensure(is_subject(&folded.subject), "folded.subject", "is no subject")?;
    plain("folded.like", &folded.like, LINE_BYTES)?;
    let unknown = |field, found| FieldError::Unknown { field, found };
    let severity = match pb::Severity::try_from(folded.severity) {
        Ok(pb::Severity::Info) => Severity::Info,
        Ok(pb::Severity::Warning) => Severity::Warning,
        Ok(pb::Severity::Error) => Severity::Error,
        _ => return Err(unknown("folded.severity", folded.severity)),
    };
    let class = match pb::Class::try_from(folded.class) {
        Ok(pb::Class::Down) => Class::Down,
        Ok(pb::Class::Space) => Class::Space,
        Ok(pb::Class::Command) => Class::Command,
        Ok(pb::Class::Client) => Class::Client,
        Ok(pb::Class::Relay) => Class::Relay,
        Ok(pb::Class::Controller) => Class::Controller,
        _ => return Err(unknown("folded.class", folded.class)),
    };
    let sample = decode_sample(given("folded.sample", folded.sample.as_ref())?)?;
    ensure(folded.first_ms <= folded.last_ms, "folded.last_ms", "is before the first")?;
    Ok(Folded {
        window: folded.window,
        fact: Fact::new(&folded.subject, severity, class, &folded.like, hash).into(),
        sample: sample.into(),
        first_ms: folded.first_ms,
        last_ms: folded.last_ms,
        counts: decode_counts(&folded.counts, hosts)?,
    })
}

fn decode_sample(sample: &pb::Sample) -> Result<Sample, FieldError> {
    plain("sample.line", &sample.line, LINE_BYTES)?;
    at_most_bytes("sample.text", sample.text.len(), TEXT_BYTES)?;
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    ensure(!sample.text.contains(odd), "sample.text", "has a control character")?;
    let order = sample.order.as_ref().map(|order| array("sample.order", order)).transpose()?;
    Ok(Sample {
        at_ms: sample.at_ms,
        host: HostId(sample.host),
        line: sample.line.clone(),
        text: sample.text.clone(),
        order: order.map(OrderId),
    })
}

fn decode_counts(
    counts: &[pb::Count],
    hosts: &mut u64,
) -> Result<BTreeMap<HostId, u64>, FieldError> {
    not_empty("folded.counts", counts.len())?;
    let (mut decoded, mut last) = (BTreeMap::new(), 0);
    for line in counts {
        within("count.count", line.count, (1, MOST))?;
        ensure(line.count > last, "folded.counts", "are not in rising order")?;
        last = line.count;
        let set = hosts::decode("count.hosts", &line.hosts)?;
        not_empty("count.hosts", set.ranges().len())?;
        ensure(set.len() <= *hosts, "folded.counts", "have more hosts than a frame may have")?;
        *hosts -= set.len();
        for host in set.iter() {
            let first = decoded.insert(host, line.count).is_none();
            ensure(first, "folded.counts", "have a host twice")?;
        }
    }
    Ok(decoded)
}
