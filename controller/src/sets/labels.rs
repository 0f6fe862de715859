//! Choosing by labels: `{os=debian && (rack<=4 || !gpu)}`.
//!
//! A test is a label alone (the host has it) or a label, an operator and a value. `=` and `!=` take
//! globs; `<`, `<=`, `>`, `>=` compare numbers, also with a magnitude (`64G` is 64 * 1024^3), and
//! else go by the order of names, in which 9.2 is before 9.10. `!` binds most, then `&&`, then
//! `||`; parentheses group.
//!
//! A host without the label meets no test of it, `!=` included: nobody is chosen by what is not
//! known of them. `!(os=debian)` is everybody else, those without the label too.

use std::cmp::Ordering;

use super::near::{glob_matches, natural_cmp};
use super::ranges::Wrong;
use super::{MAX_DEPTH, SetFault};

/// What may stand in a value without quotes beside letters and digits.
const IN_VALUES: &str = "._-:/+*?@%";
/// What may stand in the name of a label beside letters and digits.
const IN_LABELS: &str = "._-";
/// The longest name of a label and the longest value, in bytes.
const MAX_LABEL_LEN: usize = 63;
const MAX_VALUE_LEN: usize = 255;

/// What labels must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate<'a> {
    /// The label is there.
    Has(&'a str),
    /// The label is there, and this can be said of its value.
    Is(&'a str, Comparison, &'a str),
    /// This is not so.
    Not(Box<Predicate<'a>>),
    /// All of these are so.
    All(Vec<Predicate<'a>>),
    /// One of these is so.
    Any(Vec<Predicate<'a>>),
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`, with globs.
    Equal,
    /// `!=`, with globs.
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

impl<'a> Predicate<'a> {
    /// Whether it is so for a host; `label` says what its labels are.
    pub fn holds<'l>(&self, label: &impl Fn(&str) -> Option<&'l str>) -> bool {
        match self {
            Predicate::Has(name) => label(name).is_some(),
            Predicate::Is(name, comparison, value) => {
                label(name).is_some_and(|own| compare(own, *comparison, value))
            }
            Predicate::Not(inner) => !inner.holds(label),
            Predicate::All(parts) => parts.iter().all(|part| part.holds(label)),
            Predicate::Any(parts) => parts.iter().any(|part| part.holds(label)),
        }
    }

    /// The names of the labels in it.
    pub fn labels(&self) -> Vec<&'a str> {
        match self {
            Predicate::Has(name) | Predicate::Is(name, ..) => vec![name],
            Predicate::Not(inner) => inner.labels(),
            Predicate::All(parts) | Predicate::Any(parts) => {
                parts.iter().flat_map(Predicate::labels).collect()
            }
        }
    }

    /// Reads what stands between braces, up to the closing one. Returns how many bytes that is.
    pub(super) fn parse(text: &'a str) -> Result<(Predicate<'a>, usize), Wrong> {
        let mut parser = Parser { text, at: 0 };
        let predicate = parser.any(MAX_DEPTH)?;
        match parser.peek() {
            Some('}') => Ok((predicate, parser.at)),
            Some(_) => Err((parser.at, SetFault::Test)),
            None => Err((0, SetFault::OpenBrace)),
        }
    }
}

/// Why a text cannot be the name of a label, or a value of one.
pub fn check_label(name: &str, value: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || IN_LABELS.contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts || !name.chars().all(fine) || name.len() > MAX_LABEL_LEN {
        return Err(format!(
            "{name:?} is no name of a label: up to {MAX_LABEL_LEN} letters, digits, `.`, `_`, `-`"
        ));
    }
    if value.len() > MAX_VALUE_LEN || value.chars().any(|c| c.is_control() || c == '"') {
        return Err(format!(
            "the value of {name} is no value: up to {MAX_VALUE_LEN} bytes, no quotes, no control \
             characters"
        ));
    }
    Ok(())
}

fn compare(own: &str, comparison: Comparison, value: &str) -> bool {
    let order = || match (number(own), number(value)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => natural_cmp(own, value),
    };
    match comparison {
        Comparison::Equal => glob_matches(value, own),
        Comparison::Unequal => !glob_matches(value, own),
        Comparison::Less => order() == Ordering::Less,
        Comparison::AtMost => order() != Ordering::Greater,
        Comparison::More => order() == Ordering::Greater,
        Comparison::AtLeast => order() != Ordering::Less,
    }
}

/// A number, with a magnitude in steps of 1024.
fn number(text: &str) -> Option<f64> {
    let text = text.strip_suffix('B').unwrap_or(text);
    let text = text.strip_suffix('i').unwrap_or(text);
    let power = text.chars().last().and_then(|c| "KMGTP".find(c.to_ascii_uppercase()));
    let (digits, power) = match power {
        Some(power) => (&text[..text.len() - 1], power + 1),
        None => (text, 0),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    let number: f64 = if plain { digits.parse().ok()? } else { return None };
    Some((0..power).fold(number, |number, _| number * 1024.0))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, word: &str) -> bool {
        self.peek();
        let is_next = self.text[self.at..].starts_with(word);
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    fn any(&mut self, depth: usize) -> Result<Predicate<'a>, Wrong> {
        let mut parts = vec![self.all(depth)?];
        while self.take("||") {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Predicate::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Predicate<'a>, Wrong> {
        let mut parts = vec![self.part(depth)?];
        while self.take("&&") {
            parts.push(self.part(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Predicate::All(parts) })
    }

    fn part(&mut self, depth: usize) -> Result<Predicate<'a>, Wrong> {
        self.peek();
        let start = self.at;
        let inner = || depth.checked_sub(1).ok_or((start, SetFault::Deep));
        if self.take("!") {
            return Ok(Predicate::Not(Box::new(self.part(inner()?)?)));
        }
        if self.take("(") {
            let predicate = self.any(inner()?)?;
            return match self.take(")") {
                true => Ok(predicate),
                false => Err((start, SetFault::OpenParenthesis)),
            };
        }
        let name = self.word(IN_LABELS);
        if name.is_empty() {
            return Err((start, SetFault::NoLabel));
        }
        const OPERATORS: [(&str, Comparison); 7] = [
            ("!=", Comparison::Unequal),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("==", Comparison::Equal),
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::More),
        ];
        match OPERATORS.into_iter().find(|(sign, _)| self.take(sign)) {
            None => Ok(Predicate::Has(name)),
            Some((_, comparison)) => Ok(Predicate::Is(name, comparison, self.value()?)),
        }
    }

    fn value(&mut self) -> Result<&'a str, Wrong> {
        if self.take("\"") {
            let rest = &self.text[self.at..];
            let end = rest.find('"').ok_or((self.at - 1, SetFault::OpenQuote))?;
            self.at += end + 1;
            return Ok(&rest[..end]);
        }
        self.peek();
        match self.word(IN_VALUES) {
            "" => Err((self.at, SetFault::NoValue)),
            value => Ok(value),
        }
    }

    fn word(&mut self, other: &str) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !other.contains(c));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::{What, parse};

    fn holds(text: &str) -> bool {
        let labels = [("os", "debian"), ("rack", "10"), ("mem", "64G"), ("v", "9.10"), ("on", "")];
        let set = parse(text).unwrap_or_else(|error| panic!("{error}"));
        let What::Labels(predicate) = &set.terms[0].1.what else { panic!("{text}") };
        predicate
            .holds(&|name| labels.iter().find(|(own, _)| *own == name).map(|(_, value)| *value))
    }

    #[test]
    fn tests_of_one_label() {
        for text in [
            "{os}",
            "{on}",
            "{os=debian}",
            "{ os == deb* }",
            "{os!=rocky}",
            "{os=\"debian\"}",
            "{rack>9}",
            "{rack>=10}",
            "{rack<=10.0}",
            "{rack<0100}",
            "{mem>63.5G}",
            "{mem<65536.5M}",
            "{mem=64G}",
            "{mem<1T}",
            "{v>9.2x}",
            "{on=\"\"}",
            "{!gpu}",
            "{!(os=rocky)}",
            "{!gpu=yes}",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "{gpu}",
            "{gpu=yes}",
            "{gpu!=yes}",
            "{gpu<3}",
            "{os!=deb*}",
            "{os=Debian}",
            "{rack<9}",
            "{rack>10}",
            "{!os}",
            "{os<debian}",
            "{mem>1T}",
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn not_binds_most_and_or_least() {
        assert!(holds("{os || gpu && gpu}"));
        assert!(!holds("{(os || gpu) && gpu}"));
        assert!(holds("{!gpu && os}"));
        assert!(!holds("{!(gpu || os)}"));
        assert!(holds("{!!os}"));
        let set = parse("{a<3 && (b=c||!d)},x").expect("a set");
        let What::Labels(predicate) = &set.terms[0].1.what else { panic!("labels") };
        assert_eq!((predicate.labels(), set.terms.len()), (vec!["a", "b", "d"], 2));
    }

    #[test]
    fn faults_have_a_place() {
        let check = |text: &str, column: usize, says: &str| {
            let error = parse(text).expect_err(text);
            assert_eq!(error.column, column, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        };
        check("a,{os", 3, "never closed");
        check("{}", 2, "a label is missing");
        check("{os=}", 5, "a value is missing");
        check("{os=a b}", 7, "`&&` or `||`");
        check("{os&mem}", 4, "`&&` or `||`");
        check("{(os}", 2, "parenthesis is never closed");
        check("{os=\"a}", 5, "quote is never closed");
        check("{os && }", 8, "a label is missing");
        check(&format!("{{{}os}}", "!".repeat(99)), 34, "at most 32 deep");
        check("{os}x", 5, "an operator is missing");
    }

    #[test]
    fn labels_have_plain_names_and_short_values() {
        assert_eq!(check_label("os.family-2", "Debian 12 (bookworm)"), Ok(()));
        for (name, value) in
            [("", ""), ("-x", ""), ("a b", ""), ("é", ""), ("a", "\n"), ("a", "\"")]
        {
            assert!(check_label(name, value).is_err(), "{name} {value}");
        }
        assert!(
            check_label(&"a".repeat(64), "").is_err()
                && check_label("a", &"b".repeat(256)).is_err()
        );
    }
}
