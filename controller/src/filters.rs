//! Which report an error goes into: two lists of regular expressions, as operators write them.
//!
//! `delete` wins over `day`; what neither knows is urgent, so that whatever is new is seen first.
//! An expression is looked for anywhere in the line, in bytes; `#` begins a comment. A list with a
//! bad expression is refused as a whole, and the old one stays.

use std::sync::Arc;

use regex::bytes::{RegexBuilder, RegexSet, RegexSetBuilder};

use crate::fault::Failure;
use crate::tables::Tables;

/// The names of the lists.
pub(crate) const LISTS: [&str; 2] = ["delete", "day"];
/// Expressions in a list.
const MOST: usize = 2_000;
/// How long a list may be, in bytes.
const LONGEST: usize = 256 << 10;
/// How large one expression may become, and all of a list together, in bytes.
const SIZE: usize = 1 << 20;
const SIZE_OF_ALL: usize = 64 << 20;
/// What is kept while matching, so that it need not be worked out again.
const CACHE: usize = 32 << 20;

/// Where an error goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Hour,
    Day,
    Delete,
}

/// A list, ready to be used.
#[derive(Clone, Debug)]
pub(crate) struct List(Arc<RegexSet>);

impl List {
    /// Reads a list. The error names the line.
    pub(crate) fn read(name: &str, text: &str) -> Result<List, Failure> {
        let help = "one expression a line, looked for anywhere in it; # begins a comment";
        let wrong = |message: String| Failure::bad(message, help);
        if text.len() > LONGEST {
            let message = format!("filter.{name} has {} bytes; the limit is {LONGEST}", text.len());
            return Err(wrong(message));
        }
        let mut expressions = Vec::new();
        for (no, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let built = RegexBuilder::new(line).unicode(false).size_limit(SIZE).build();
            if let Err(error) = built {
                // The last line of the error says what is wrong; those before show where.
                let error = error.to_string();
                let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let message =
                    format!("filter.{name}, line {}: {line:?} is no expression: {why}", no + 1);
                return Err(wrong(message));
            }
            expressions.push(line);
        }
        if expressions.len() > MOST {
            let count = expressions.len();
            let message = format!("filter.{name} has {count} expressions; the limit is {MOST}");
            return Err(wrong(message));
        }
        let set = RegexSetBuilder::new(&expressions)
            .unicode(false)
            .size_limit(SIZE_OF_ALL)
            .dfa_size_limit(CACHE)
            .build()
            .map_err(|error| wrong(format!("filter.{name} is too large as a whole: {error}")))?;
        Ok(List(set.into()))
    }

    fn matches(&self, line: &str) -> bool {
        self.0.is_match(line.as_bytes())
    }
}

/// Both lists.
#[derive(Clone, Debug)]
pub(crate) struct Filters {
    pub(crate) delete: List,
    pub(crate) day: List,
}

impl Filters {
    /// The lists that are in force.
    pub(crate) fn load(tables: &Tables) -> Result<Filters, Failure> {
        let [delete, day] = LISTS.map(|name| List::read(name, &tables.filter(name)?));
        Ok(Filters { delete: delete?, day: day? })
    }

    /// Where an error with this line goes.
    pub(crate) fn way(&self, line: &str) -> Way {
        match line {
            line if self.delete.matches(line) => Way::Delete,
            line if self.day.matches(line) => Way::Day,
            _ => Way::Hour,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(delete: &str, day: &str) -> Filters {
        Filters {
            delete: List::read("delete", delete).expect("a list"),
            day: List::read("day", day).expect("a list"),
        }
    }

    #[test]
    fn what_is_new_is_urgent_and_delete_wins() {
        let filters = filters("# old noise\nstale .*handle\n\n", "device busy\nstale");
        assert_eq!(filters.way("umount: device busy on /x"), Way::Day);
        assert_eq!(filters.way("nfs: stale file handle"), Way::Delete);
        assert_eq!(filters.way("stale lock"), Way::Day);
        assert_eq!(filters.way("something new"), Way::Hour);
    }

    #[test]
    fn a_bad_expression_is_named_by_its_line() {
        let message = |text: &str| List::read("day", text).expect_err("bad").error.message;
        assert!(message("good\n# x\nbad(\n").starts_with("filter.day, line 3: \"bad(\" is no"));
        assert!(message("(a{1000}){1000}").starts_with("filter.day, line 1:"));
        assert!(message(&"x\n".repeat(MOST + 1)).contains("2001 expressions"));
        assert!(message(&"y".repeat(LONGEST + 1)).contains("bytes"));
    }

    #[test]
    fn many_lines_against_many_expressions() {
        let expressions = |word: &str| -> String {
            let line = |n| format!("{word}{n} .*(failed|denied) on /dev/sd[a-z]{n}\n");
            (0..100).map(line).collect()
        };
        let filters = filters(&expressions("alpha"), &expressions("beta"));
        let begun = std::time::Instant::now();
        let mut ways = [0; 3];
        for n in 0..100_000 {
            let word = ["alpha", "beta", "gamma"][n % 3];
            let line = format!("{word}{} write failed on /dev/sdc{} at {n}", n % 100, n % 100);
            ways[filters.way(&line) as usize] += 1;
        }
        println!("100,000 lines against 200 expressions: {:?}", begun.elapsed());
        assert_eq!(ways, [33_333, 33_333, 33_334]);
    }
}
