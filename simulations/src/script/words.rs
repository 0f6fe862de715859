//! How a script writes times, odds and sets, and what it leaves out.

use std::time::Duration;

use mesh::{HostSet, OrderId};

use crate::plan::{self, Span};

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

pub(super) fn is_zero(value: &usize) -> bool {
    *value == 0
}

pub(super) fn is_never(odds: &f64) -> bool {
    *odds == 0.0
}

pub(super) fn is_nothing(number: &u64) -> bool {
    *number == 0
}

pub(super) fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

pub(super) fn span((least, most): Span) -> [u64; 2] {
    [ms(least), ms(most)]
}

pub(super) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn spanned([least, most]: [u64; 2]) -> Result<Span, String> {
    match least <= most {
        true => Ok((millis(least), millis(most))),
        false => Err(format!("the span [{least}, {most}] ends before it begins")),
    }
}

pub(super) fn odds(name: &str, odds: f64) -> Result<f64, String> {
    match (0.0..=1.0).contains(&odds) {
        true => Ok(odds),
        false => Err(format!("{name} = {odds} is not from 0 to 1")),
    }
}

pub(super) fn id(no: u64) -> OrderId {
    plan::run(no as usize, HostSet::new()).id
}

pub(super) fn hosts(text: &str) -> Result<HostSet, String> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
    };
    let parts = text.split(',').filter(|part| !part.is_empty());
    let ranges: Option<Vec<_>> = parts.map(range).collect();
    let ranges = ranges.filter(|list| list.iter().all(|(first, last)| first <= last));
    let ranges = ranges.ok_or_else(|| format!("{text:?} is no set as \"0-3,7\""))?;
    Ok(HostSet::from_ranges(ranges))
}
