//! A page in the OpenMetrics text format, version 1.0.
//!
//! Each family stands once, with its help, type and unit, and the page ends with `# EOF`. What does
//! not fit the format (a name that lacks its unit, a family of another type) is a mistake of the
//! code and found by debug builds; what comes from elsewhere are values of labels, and any text
//! will do for those.

use std::fmt::Write;

/// What kind of figures a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How long things took, in buckets.
    Histogram,
    /// Words about the process, as labels.
    Info,
}

/// What is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// How many.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// Figures of one name.
#[derive(Clone, Debug)]
pub struct Family {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
    lines: String,
}

/// All that a node has to say.
#[derive(Clone, Debug, Default)]
pub struct Page {
    families: Vec<Family>,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
        }
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }
}

impl Page {
    /// The family of this name: the one that is there, or a new one. Whoever asks again for one
    /// that is there means the same kind.
    pub fn family(
        &mut self,
        (kind, unit): (Kind, Unit),
        name: &'static str,
        help: &'static str,
    ) -> &mut Family {
        let place = self.families.iter().position(|family| family.name == name);
        let place = place.unwrap_or_else(|| {
            debug_assert!(name.ends_with(unit.word()), "{name} lacks its unit");
            self.families.push(Family { name, kind, unit, help, lines: String::new() });
            self.families.len() - 1
        });
        let family = &mut self.families[place];
        debug_assert_eq!((family.kind, family.unit), (kind, unit), "{name} is of two kinds");
        family
    }

    /// What only grows. The format adds `_total` to the name of each sample.
    pub fn counter(&mut self, unit: Unit, name: &'static str, help: &'static str) -> &mut Family {
        self.family((Kind::Counter, unit), name, help)
    }

    /// What goes up and down.
    pub fn gauge(&mut self, unit: Unit, name: &'static str, help: &'static str) -> &mut Family {
        self.family((Kind::Gauge, unit), name, help)
    }

    /// How long things took.
    pub fn times(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family((Kind::Histogram, Unit::Seconds), name, help)
    }

    /// The page as text. Families without a sample are left out.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for family in self.families.iter().filter(|family| !family.lines.is_empty()) {
            let Family { name, kind, unit, help, lines } = family;
            text.push_str(&format!("# HELP {name} {}\n", escaped(help)));
            text.push_str(&format!("# TYPE {name} {}\n", kind.word()));
            if *unit != Unit::None {
                text.push_str(&format!("# UNIT {name} {}\n", unit.word()));
            }
            text.push_str(lines);
        }
        text.push_str("# EOF\n");
        text
    }
}

impl Family {
    /// A sample.
    pub fn put(&mut self, labels: &[(&'static str, &str)], value: f64) {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.line(suffix, labels, value);
    }

    /// A histogram: how many took no longer than each bound, rising to infinity, and all together.
    pub(crate) fn put_histogram(
        &mut self,
        labels: &[(&'static str, &str)],
        buckets: &[(f64, u64)],
        sum: f64,
    ) {
        for (bound, count) in buckets {
            let bound = number(*bound);
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.line("_bucket", &labels, *count as f64);
        }
        let count = buckets.last().map_or(0, |(_, count)| *count);
        self.line("_count", labels, count as f64);
        self.line("_sum", labels, sum);
    }

    fn line(&mut self, suffix: &str, labels: &[(&'static str, &str)], value: f64) {
        let (name, lines) = (self.name, &mut self.lines);
        lines.push_str(name);
        lines.push_str(suffix);
        for (n, (label, value)) in labels.iter().enumerate() {
            lines.push(if n == 0 { '{' } else { ',' });
            write!(lines, "{label}=\"{}\"", escaped(value)).expect("a string takes all");
        }
        if !labels.is_empty() {
            lines.push('}');
        }
        writeln!(lines, " {}", number(value)).expect("a string takes all");
    }
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        // Seconds and bytes as they are read best; never with an exponent.
        value => value.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{Counter, Histogram, Words};

    #[test]
    fn a_page_as_the_format_wants_it() {
        let mut page = Page::default();
        let sent = Counter::default();
        sent.add(3);
        let bytes = page.counter(Unit::Bytes, "barid_link_bytes", "What \\ crossed");
        bytes.put(&[("dir", "sent"), ("peer", "a\"b\\c\nd")], sent.now() as f64);
        page.gauge(Unit::None, "barid_nothing", "Left out");
        let times = Histogram::new(&[0.001, 0.5]);
        [1, 2, 3_000].iter().for_each(|ms| times.observe(Duration::from_millis(*ms)));
        times.put(&[("kind", "run")], page.times("barid_job_duration_seconds", "How long"));
        let results = Words::default();
        results.add(["run", "ok"], 2);
        results.put(["kind", "result"], page.counter(Unit::None, "barid_job_results", "Ends"));
        let info = (Kind::Info, Unit::None);
        page.family(info, "barid_build", "Version").put(&[("version", "1")], 1.0);
        // The same family once more is still one family.
        page.counter(Unit::Bytes, "barid_link_bytes", "").put(&[], 0.5);
        let text = "\
# HELP barid_link_bytes What \\\\ crossed
# TYPE barid_link_bytes counter
# UNIT barid_link_bytes bytes
barid_link_bytes_total{dir=\"sent\",peer=\"a\\\"b\\\\c\\nd\"} 3
barid_link_bytes_total 0.5
# HELP barid_job_duration_seconds How long
# TYPE barid_job_duration_seconds histogram
# UNIT barid_job_duration_seconds seconds
barid_job_duration_seconds_bucket{kind=\"run\",le=\"0.001\"} 1
barid_job_duration_seconds_bucket{kind=\"run\",le=\"0.5\"} 2
barid_job_duration_seconds_bucket{kind=\"run\",le=\"+Inf\"} 3
barid_job_duration_seconds_count{kind=\"run\"} 3
barid_job_duration_seconds_sum{kind=\"run\"} 3.003
# HELP barid_job_results Ends
# TYPE barid_job_results counter
barid_job_results_total{kind=\"run\",result=\"ok\"} 2
# HELP barid_build Version
# TYPE barid_build info
barid_build_info{version=\"1\"} 1
# EOF
";
        assert_eq!(page.text(), text);
    }

    #[test]
    fn words_are_bounded() {
        let words = Words::default();
        let names: Vec<&'static str> =
            (0..100).map(|n| &*Box::leak(format!("w{n}").into_boxed_str())).collect();
        names.iter().for_each(|name| words.add([*name], 1));
        let mut page = Page::default();
        words.put(["word"], page.counter(Unit::None, "barid_words", "Words"));
        let text = page.text();
        assert_eq!(text.matches("barid_words_total").count(), 33, "{text}");
        assert!(text.contains("{word=\"other\"} 68\n"), "{text}");
    }

    proptest! {
        #[test]
        fn no_label_breaks_out_of_its_line(value in any::<String>()) {
            let mut page = Page::default();
            page.gauge(Unit::None, "barid_x", "X").put(&[("of", &value)], 1.0);
            let text = page.text();
            prop_assert_eq!(text.split('\n').count(), 5);
            let mut inside = text.lines().nth(2).unwrap_or_default().char_indices();
            let mut quotes = 0;
            while let Some((_, c)) = inside.next() {
                match c {
                    '\\' => drop(inside.next()),
                    '"' => quotes += 1,
                    _ => {}
                }
            }
            prop_assert_eq!(quotes, 2);
        }
    }
}
