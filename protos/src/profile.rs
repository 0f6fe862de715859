//! What hosts say of themselves: on the wire, and the facts in it.
//!
//! On a link hosts that say the same share one text, which relays do not read. Whoever reads it
//! gets [`Facts`]: names and values of a limited length without control characters, whoever wrote
//! them.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh::{Frame, PROFILE_BYTES, PROFILE_LINES, Profile, Profiled};
use prost::Message;

use crate::field::{at_most, at_most_bytes, ensure, not_empty};
use crate::{FieldError, Malformed, hosts, pb, shape};

/// Hosts in one frame. A few ranges could say four billion.
const HOSTS: u64 = 131_072;
/// Facts of one host.
pub const FACTS: usize = 64;
/// The longest name of a fact, and the longest value, in bytes.
const NAME_BYTES: usize = 63;
const VALUE_BYTES: usize = 255;

/// What a host says of itself: values by name.
pub type Facts = BTreeMap<String, String>;

/// Bytes that are no facts. Nothing has changed; their host is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// The bytes are no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A field holds what it must not.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Why a name or a value cannot be a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFact {
    /// The name.
    #[error("a name has up to {NAME_BYTES} letters, digits, `.`, `_` and `-`")]
    Name,
    /// The value.
    #[error("a value has up to {VALUE_BYTES} bytes, no quotes and no control characters")]
    Value,
}

/// Whether this can be a fact.
pub fn check_fact(name: &str, value: &str) -> Result<(), NoFact> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || !name.chars().all(fine) || name.len() > NAME_BYTES {
        return Err(NoFact::Name);
    }
    let odd = |c: char| c.is_control() || c == '"';
    if value.len() > VALUE_BYTES || value.contains(odd) {
        return Err(NoFact::Value);
    }
    Ok(())
}

/// The text of a profile with these facts. Equal facts are equal bytes.
pub fn encode_facts(facts: &Facts) -> Bytes {
    let fact =
        |(name, value): (&String, &String)| pb::Fact { name: name.clone(), value: value.clone() };
    pb::Facts { facts: facts.iter().map(fact).collect() }.encode_to_vec().into()
}

/// The facts in the text of a profile.
pub fn decode_facts(text: Bytes) -> Result<Facts, FactsError> {
    at_most_bytes("profile.text", text.len(), PROFILE_BYTES)?;
    let message = shape::decode::<pb::Facts>(text)?;
    at_most("facts.facts", message.facts.len(), FACTS)?;
    let mut facts = Facts::new();
    for pb::Fact { name, value } in message.facts {
        let rises = facts.last_key_value().is_none_or(|(last, _)| *last < name);
        ensure(rises, "facts.facts", "are not in the order of their names")?;
        match check_fact(&name, &value) {
            Ok(()) => drop(facts.insert(name, value)),
            Err(NoFact::Name) => ensure(false, "fact.name", "is no name")?,
            Err(NoFact::Value) => ensure(false, "fact.value", "is no value")?,
        }
    }
    Ok(facts)
}

pub(crate) fn encode(no: u64, lines: &[Profiled]) -> pb::Profiles {
    let same = lines.chunk_by(|one, next| one.profile.text == next.profile.text);
    let told = |line: &Profiled| pb::Told {
        revision: line.profile.revision,
        hosts: hosts::encode(&line.hosts),
    };
    let profile = |lines: &[Profiled]| pb::Profile {
        text: lines[0].profile.text.clone(),
        told: lines.iter().map(told).collect(),
    };
    pb::Profiles { no, profiles: same.map(profile).collect() }
}

pub(crate) fn decode(profiles: &pb::Profiles) -> Result<Frame, FieldError> {
    let (mut lines, mut left) = (Vec::new(), HOSTS);
    for pb::Profile { text, told } in &profiles.profiles {
        at_most_bytes("profile.text", text.len(), PROFILE_BYTES)?;
        not_empty("profile.told", told.len())?;
        at_most("profile.told", lines.len() + told.len(), PROFILE_LINES)?;
        for told in told {
            let hosts = hosts::decode("told.hosts", &told.hosts)?;
            not_empty("told.hosts", hosts.ranges().len())?;
            ensure(hosts.len() <= left, "told.hosts", "are more than a frame may have")?;
            left -= hosts.len();
            let profile = Profile { revision: told.revision, text: text.clone() };
            lines.push(Profiled { profile, hosts });
        }
    }
    Ok(Frame::Profiles { no: profiles.no, lines })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::mangle;

    fn facts() -> impl Strategy<Value = Facts> {
        let name = "[a-zA-Z0-9][a-z0-9._-]{0,9}";
        proptest::collection::btree_map(name, "[^\\p{C}\"]{0,20}", 0..9)
    }

    proptest! {
        #[test]
        fn facts_go_round(facts in facts()) {
            prop_assert_eq!(decode_facts(encode_facts(&facts)), Ok(facts));
        }

        #[test]
        fn mangled_facts_are_harmless(bytes in mangle(facts(), encode_facts)) {
            if let Ok(found) = decode_facts(bytes) {
                prop_assert!(found.iter().all(|(name, value)| check_fact(name, value).is_ok()));
            }
        }
    }

    #[test]
    fn what_is_no_fact_is_refused() {
        let check = |facts: &[(&str, &str)], expected: &str| {
            let fact = |(name, value): &(&str, &str)| pb::Fact {
                name: (*name).into(),
                value: (*value).into(),
            };
            let text = pb::Facts { facts: facts.iter().map(fact).collect() }.encode_to_vec();
            let error = decode_facts(text.into()).expect_err("no facts");
            assert_eq!(error.to_string(), expected);
        };
        check(&[("os", "a\u{1b}[2J")], "fact.value is no value");
        check(&[("o s", "a")], "fact.name is no name");
        check(&[("b", ""), ("a", "")], "facts.facts are not in the order of their names");
        let many: Vec<String> = (100..165).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        check(&many, "facts.facts has 65 elements; the limit is 64");
        let long = "x".repeat(200);
        let many: Vec<String> = (100..130).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), long.as_str())).collect();
        check(&many, "profile.text has 6330 bytes; the limit is 4096");
    }
}
