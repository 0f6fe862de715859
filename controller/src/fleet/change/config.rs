//! The configuration as a whole: levels, domains and frequencies.
//!
//! It changes only if all that is recorded still makes sense with it.

use std::sync::Arc;

use jiff::tz::TimeZone;
use timing::Cron;

use super::{Done, Effect, Refusal};
use crate::fleet::book::{Book, Config};
use crate::fleet::domain::Wild;
use crate::fleet::hostdata;
use crate::fleet::levels::{LevelError, Levels};
use crate::fleet::types::Frequency;
use crate::rollout::gate::WaveGate;
use crate::rollout::waves;

impl Book {
    pub(crate) fn import_config(&mut self, text: &str) -> Done {
        let config: Config =
            toml::from_str(text).map_err(|error| Refusal::Config(at_span(text, &error)))?;
        let levels = Levels { levels: config.level, domains: config.domains };
        levels.check().map_err(|error| Refusal::Config(at_name(text, &error)))?;
        if levels.levels.len() != self.levels.levels.len() && !self.hosts.is_empty() {
            let what = "the number of levels cannot change while there are host records: \
                        export them, remove them, and import them again";
            return Err(Refusal::Config(what.into()));
        }
        for record in self.hosts.values().flat_map(|records| records.iter()) {
            hostdata::check(record, &levels).map_err(Refusal::Host)?;
        }
        for path in self.entries.keys() {
            levels.verify(&path.domain, Wild::On)?;
        }
        for (name, frequency) in &config.frequency {
            let wrong = |what| Refusal::Config(at_line(text, "frequency", name, what));
            check_frequency(name, frequency).map_err(wrong)?;
        }
        for (name, site) in &config.site {
            let wrong = |_| {
                let what = format!("site {name}: unknown time zone {:?}", site.zone);
                Refusal::Config(at_line(text, "site", name, what))
            };
            TimeZone::get(&site.zone).map_err(wrong)?;
        }
        let used = self.entries.values().map(|entry| &entry.frequency);
        if let Some(used) = used.into_iter().find(|name| !config.frequency.contains_key(*name)) {
            let what = format!("frequency {used} is missing, which files have");
            return Err(Refusal::Config(what));
        }
        let notes = levels.idle_rules();
        if *self.levels != levels {
            self.levels = Arc::new(levels);
        }
        if *self.frequencies != config.frequency {
            self.frequencies = Arc::new(config.frequency);
        }
        if *self.sites != config.site {
            self.sites = Arc::new(config.site);
        }
        Ok(Effect { notes, ..Effect::default() })
    }
}

/// What is wrong with the text itself, in one line, with where that is.
fn at_span(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let words: Vec<_> = error.message().split_whitespace().collect();
    format!("line {line}: {}", words.join(" "))
}

/// What is wrong, with the line in which its table begins.
fn at_line(text: &str, table: &str, name: &str, what: String) -> String {
    let heads = [format!("[{table}.{name}]"), format!("[{table}.\"{name}\"]")];
    let at = text.lines().position(|line| heads.iter().any(|head| line.trim() == head));
    at.map_or_else(|| what.clone(), |at| format!("line {}: {what}", at + 1))
}

/// What is wrong with levels and domains, with the line in which the name stands that it is about.
fn at_name(text: &str, error: &LevelError) -> String {
    let what = error.to_string();
    let name = match error {
        LevelError::Levels(_) => what.split('"').nth(1),
        _ => what.split(':').next(),
    };
    let quoted = name.map(|name| format!("\"{name}\""));
    let at = quoted.and_then(|name| text.lines().position(|line| line.contains(&name)));
    at.map_or_else(|| what.clone(), |at| format!("line {}: {what}", at + 1))
}

/// Whether a frequency makes sense.
fn check_frequency(name: &str, frequency: &Frequency) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fine) || name == "all" {
        return Err(format!("{name:?} is no name of a frequency"));
    }
    let within = |what: String| format!("frequency {name}: {what}");
    let times = frequency.times();
    Cron::check(&times).map_err(|error| within(error.to_string()))?;
    let is_spread = [&times.splay, &times.expires].iter().any(|text| !text.is_empty());
    if !frequency.waves.is_empty() && (is_spread || !times.windows.is_empty()) {
        let what = "it goes in waves, which have a pace of their own: no splay, windows or expires";
        return Err(within(what.into()));
    }
    timing::check_turns(&times).map_err(|error| within(error.to_string()))?;
    if frequency.waves.is_empty() && !frequency.gate.is_empty() {
        return Err(within("a gate, and no waves".into()));
    }
    if !frequency.waves.is_empty() {
        waves::check_plain(&frequency.waves).map_err(within)?;
    }
    let gate = frequency.gate.parse::<WaveGate>();
    let gate = gate.map_err(|error| within(error.to_string()))?;
    for (at, hosts) in waves::most(&frequency.waves) {
        if let Some(why) = gate.impossible(hosts) {
            return Err(within(format!("wave {} can never pass: {why}", at + 1)));
        }
    }
    Ok(())
}
