//! Reads pages as OpenMetrics 1.0 wants them, and refuses anything else.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

type Labels = BTreeMap<String, String>;

/// A page that was read.
pub(crate) struct Page {
    /// Names of families with their types.
    families: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Page {
    pub(crate) fn read(text: &str) -> Result<Page> {
        let mut page = Page { families: BTreeMap::new(), samples: BTreeMap::new() };
        let body = text.strip_suffix("# EOF\n").context("it must end with # EOF")?;
        let mut family = String::new();
        for line in body.lines() {
            if let Some(meta) = line.strip_prefix("# ") {
                let mut words = meta.splitn(3, ' ');
                let mut word = || words.next().with_context(|| line.to_owned());
                match (word()?, word()?, word()?) {
                    ("HELP", name, help) => {
                        ensure!(!help.is_empty(), "{line}: no help");
                        family = name.into();
                    }
                    ("TYPE", name, kind) => {
                        ensure!(name == family, "{line}: a type without help");
                        let known = ["counter", "gauge", "histogram", "info"].contains(&kind);
                        ensure!(known, "{line}: no type that we use");
                        let new = page.families.insert(name.into(), kind.into()).is_none();
                        ensure!(new, "{line}: the family was there before");
                    }
                    ("UNIT", name, unit) => {
                        ensure!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
                    }
                    _ => bail!("{line}: neither HELP, TYPE nor UNIT"),
                }
                continue;
            }
            let (name, labels, value) = sample(line)?;
            let suffix = name.strip_prefix(&family).with_context(|| format!("{line}: astray"))?;
            let fits: &[&str] = match page.families.get(&family).map(String::as_str) {
                Some("counter") => &["_total"],
                Some("info") => &["_info"],
                Some("gauge") => &[""],
                Some("histogram") => &["_bucket", "_count", "_sum"],
                _ => bail!("{line}: its family has no type"),
            };
            ensure!(fits.contains(&suffix), "{line}: not a sample of such a family");
            ensure!(labels.contains_key("le") == (suffix == "_bucket"), "{line}: a bound");
            let new = page.samples.insert((name, labels), value).is_none();
            ensure!(new, "{line}: the sample was there before");
        }
        Ok(page)
    }

    pub(crate) fn families(&self) -> impl Iterator<Item = &str> {
        self.families.keys().map(String::as_str)
    }

    /// The sample of this name with exactly these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(label, value)| ((*label).into(), (*value).into()));
        self.samples.get(&(name.into(), labels.collect())).copied()
    }

    /// Whether there is a sample of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.samples.keys().any(|(other, _)| other == name)
    }

    /// Whether a label has one of these values.
    pub(crate) fn mentions(&self, values: &[&str]) -> bool {
        let mut labels = self.samples.keys().flat_map(|(_, labels)| labels.values());
        labels.any(|value| values.contains(&value.as_str()))
    }
}

fn sample(line: &str) -> Result<(String, Labels, f64)> {
    let broken = || format!("{line}: not a sample");
    let (head, value) = line.rsplit_once(' ').with_context(broken)?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        value => value.parse().with_context(broken)?,
    };
    let (name, inner) = match head.strip_suffix('}') {
        Some(head) => head.split_once('{').with_context(broken)?,
        None => (head, ""),
    };
    let proper = |c: char| c.is_ascii_lowercase() || c == '_';
    ensure!(name.starts_with("barid_") && name.chars().all(proper), broken());
    let mut labels = Labels::new();
    let mut rest = inner;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").with_context(broken)?;
        // None of our tests has a quote in a name.
        let (value, after) = after.split_once('"').with_context(broken)?;
        ensure!(label.chars().all(proper), broken());
        ensure!(labels.insert(label.into(), value.into()).is_none(), broken());
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Ok((name.into(), labels, value))
}

/// The names of metrics in some text.
pub(crate) fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("barid_")).map(String::from).collect()
}
