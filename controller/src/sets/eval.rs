//! What a set means: terms looked up by whoever knows them, operators worked off left to right.

use std::collections::HashMap;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    place: HashMap<String, usize>,
    next: usize,
}

impl Names {
    /// The names, in the order in which they came.
    pub fn into_vec(self) -> Vec<String> {
        let mut names: Vec<(usize, String)> =
            self.place.into_iter().map(|(name, place)| (place, name)).collect();
        names.sort_unstable_by_key(|(place, _)| *place);
        names.into_iter().map(|(_, name)| name).collect()
    }

    fn add(&mut self, name: String) {
        let place = self.next;
        self.place.entry(name).or_insert(place);
        self.next += 1;
    }
}

impl FromIterator<String> for Names {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Names {
        let names = names.into_iter();
        let mut set = Names { place: HashMap::with_capacity(names.size_hint().0), next: 0 };
        names.for_each(|name| set.add(name));
        set
    }
}

impl Algebra for Names {
    fn any(sets: Vec<Names>) -> Names {
        let mut sets = sets.into_iter().filter(|set| !set.place.is_empty());
        let Some(mut all) = sets.next() else { return Names::default() };
        for set in sets {
            set.into_vec().into_iter().for_each(|name| all.add(name));
        }
        all
    }

    fn minus(mut self, other: Names) -> Names {
        for name in other.place.keys() {
            self.place.remove(name);
        }
        self
    }

    fn both(mut self, other: Names) -> Names {
        self.place.retain(|name, _| other.place.contains_key(name));
        self
    }

    fn either(mut self, other: Names) -> Names {
        for name in other.into_vec() {
            if self.place.remove(&name).is_none() {
                self.add(name);
            }
        }
        self
    }
}
