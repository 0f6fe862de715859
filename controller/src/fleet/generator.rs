//! Content that is made from the host records: whoever changes these changes it with them.
//!
//! A generator belongs to content, so entries that share it have the same. It is made anew in the
//! change that touches the host records, and is a new revision only if its bytes are others.

use super::book::{Book, Source};
use super::change::{Effect, Pen, Refusal};
use super::domain::DomainPath;
use super::hostdata::{self, Table};
use super::types::Generator;

impl Generator {
    /// What it makes.
    pub(crate) fn table(self, book: &Book) -> Table {
        match self {
            Generator::Mkhost => hostdata::hosts_table(book.records(), false),
            Generator::MkhostSeveral => hostdata::hosts_table(book.records(), true),
            Generator::Mkether => hostdata::ethers_table(book.records()),
        }
    }

    /// As it is written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Generator::Mkhost => "mkhost",
            Generator::MkhostSeveral => "mkhost -s",
            Generator::Mkether => "mkether",
        }
    }
}

impl Book {
    /// What makes the content of an entry from here on; none: people do.
    pub(crate) fn set_generator(
        &mut self,
        path: &DomainPath,
        generator: Option<Generator>,
    ) -> Result<Effect, Refusal> {
        let number = self.entry(path)?.source;
        self.check_lock(path, None)?;
        let source = &self.sources[&number];
        let is_folder = source.revision.content.files.is_some();
        if let Some(generator) = generator.filter(|_| is_folder) {
            let what = format!("is a folder, and {} makes a file", generator.word());
            return Err(Refusal::Entry { path: path.clone(), what });
        }
        self.replace(number, Source { generator, ..(**source).clone() });
        Ok(Effect::default())
    }

    /// Nobody writes by hand what is made.
    pub(crate) fn check_by_hand(&self, path: &DomainPath) -> Result<(), Refusal> {
        let Some(generator) = self.sources[&self.entry(path)?.source].generator else {
            return Ok(());
        };
        let what = format!(
            "is made by {} from the host records: `barid file generator {path} none` ends that",
            generator.word()
        );
        Err(Refusal::Entry { path: path.clone(), what })
    }

    /// Content that is to be made, since what it is made from may be another than in that book.
    pub(crate) fn to_be_made(&self, old: &Book) -> Vec<(u64, Generator)> {
        let other_hosts = self.hosts != old.hosts;
        let is_due = |number: &u64, generator: Generator| {
            let before = old.sources.get(number).and_then(|source| source.generator);
            other_hosts || before != Some(generator)
        };
        let made = self.sources.iter().filter_map(|(n, source)| Some((*n, source.generator?)));
        made.filter(|(number, generator)| is_due(number, *generator)).collect()
    }

    /// Gives content that was made a new revision, if it is another.
    pub(crate) fn put_made(
        &mut self,
        number: u64,
        content: super::book::Content,
        pen: &Pen,
    ) -> Effect {
        let source = &self.sources[&number];
        if source.revision.content == content {
            return Effect::default();
        }
        let revision = pen.revision(source.revision.number + 1, content);
        self.replace(number, Source { revision: revision.clone(), ..(**source).clone() });
        let touched = self.sharing(number).cloned().collect();
        Effect { touched, revisions: vec![(number, revision)], ..Effect::default() }
    }
}
