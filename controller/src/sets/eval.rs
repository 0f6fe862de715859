//! What a set means: terms looked up by whoever knows them, operators worked off left to right.

use super::hash::Map;
use super::parse::{Op, Set, Term, What};

/// Sets that the operators work on.
pub trait Algebra: Sized + Default {
    /// Those in any of the sets.
    fn any(sets: Vec<Self>) -> Self;
    /// Those that are not in `other`.
    fn minus(self, other: Self) -> Self;
    /// Those that are in `other` as well.
    fn both(self, other: Self) -> Self;
    /// Those in one of the two only.
    fn either(self, other: Self) -> Self;
}

/// Works a set off. `look` says who is meant by a term; parentheses are no concern of it.
pub fn evaluate<'a, S: Algebra, E>(
    set: &Set<'a>,
    look: &mut impl FnMut(&Term<'a>) -> Result<S, E>,
) -> Result<S, E> {
    let mut result = S::default();
    let mut terms = set.terms.iter().peekable();
    while let Some((op, term)) = terms.next() {
        let mut value = member(term, look)?;
        if matches!(op, Op::Or | Op::Minus) {
            // `a,b,c` and `a!b!c` are one step each: long lists must not cost their square.
            let mut run = vec![value];
            while let Some((_, term)) = terms.next_if(|(next, _)| next == op) {
                run.push(member(term, look)?);
            }
            value = S::any(run);
        }
        result = match op {
            Op::Or => S::any(vec![result, value]),
            Op::Minus => result.minus(value),
            Op::And => result.both(value),
            Op::Xor => result.either(value),
        };
    }
    Ok(result)
}

fn member<'a, S: Algebra, E>(
    term: &Term<'a>,
    look: &mut impl FnMut(&Term<'a>) -> Result<S, E>,
) -> Result<S, E> {
    match &term.what {
        What::Set(set) => evaluate(set, look),
        _ => look(term),
    }
}

/// A set of names that remembers in which order they came.
///
/// What stands after an operator is looked through once and needs no index, so a set is a list
/// until something must be found in it.
#[derive(Clone, Debug)]
pub struct Names(Form);

#[derive(Clone, Debug)]
enum Form {
    /// As they came, some perhaps more than once.
    Listed(Vec<String>),
    /// Each with its place, and the next place.
    Indexed(Map<String, usize>, usize),
}

impl Default for Names {
    fn default() -> Names {
        Names(Form::Listed(Vec::new()))
    }
}

impl From<Vec<String>> for Names {
    fn from(names: Vec<String>) -> Names {
        Names(Form::Listed(names))
    }
}

impl Names {
    /// The names, in the order in which they came, each once.
    pub fn into_vec(self) -> Vec<String> {
        let (index, _) = self.indexed();
        let mut names: Vec<(usize, String)> =
            index.into_iter().map(|(name, place)| (place, name)).collect();
        names.sort_unstable_by_key(|(place, _)| *place);
        names.into_iter().map(|(_, name)| name).collect()
    }

    fn indexed(self) -> (Map<String, usize>, usize) {
        match self.0 {
            Form::Indexed(index, next) => (index, next),
            Form::Listed(names) => {
                let next = names.len();
                let mut index = Map::default();
                index.reserve(next);
                for (place, name) in names.into_iter().enumerate() {
                    index.entry(name).or_insert(place);
                }
                (index, next)
            }
        }
    }

    /// The names, in any order if they are indexed, and some perhaps more than once.
    fn listed(self) -> Vec<String> {
        match self.0 {
            Form::Listed(names) => names,
            Form::Indexed(index, _) => index.into_keys().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Listed(names) => names.is_empty(),
            Form::Indexed(index, _) => index.is_empty(),
        }
    }
}

impl Algebra for Names {
    fn any(sets: Vec<Names>) -> Names {
        let mut sets = sets.into_iter().filter(|set| !set.is_empty());
        let Some(first) = sets.next() else { return Names::default() };
        let mut rest = sets.peekable();
        if rest.peek().is_none() {
            return first;
        }
        let mut all = match first.0 {
            Form::Listed(names) => names,
            indexed => Names(indexed).into_vec(),
        };
        rest.for_each(|set| match set.0 {
            Form::Listed(names) => all.extend(names),
            indexed => all.extend(Names(indexed).into_vec()),
        });
        all.into()
    }

    fn minus(self, other: Names) -> Names {
        let (mut index, next) = self.indexed();
        for name in other.listed() {
            index.remove(&name);
        }
        Names(Form::Indexed(index, next))
    }

    fn both(self, other: Names) -> Names {
        let (mut index, next) = self.indexed();
        let found = other.listed().into_iter().filter_map(|name| index.remove_entry(&name));
        Names(Form::Indexed(found.collect(), next))
    }

    fn either(self, other: Names) -> Names {
        let (mut index, mut next) = self.indexed();
        for name in other.into_vec() {
            if index.remove(&name).is_none() {
                index.insert(name, next);
                next += 1;
            }
        }
        Names(Form::Indexed(index, next))
    }
}
