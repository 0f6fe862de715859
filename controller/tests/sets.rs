//! The algebra of sets of names: whatever is folded can be expanded again, operators obey their
//! laws, and no text makes anything but a set or an error.

use std::collections::BTreeSet;

use controller::sets::{Group, expand, fold, fold_stepped, natural_cmp, parse, regroup};
use proptest::prelude::*;

type Set = BTreeSet<String>;

/// Names of every shape: several numbers, padding, suffixes, and many that are close.
fn names() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![
        "[a-b]{0,2}[0-9]{1,3}",
        "s[1-2]-h0{0,2}[0-9]{1,2}(-ib)?",
        "r[1-3]n[1-3]x0?[1-3]",
        "[a-c][a-c0-9._-]{0,6}",
        "n[0-9]{17,20}",
        "([0-9]x){14,18}[12]",
    ];
    prop::collection::vec(name, 0..60)
}

/// Few names, so that sets of them meet.
fn few() -> impl Strategy<Value = Set> {
    prop::collection::btree_set("[ab][1-3]", 0..6)
}

fn operator() -> impl Strategy<Value = char> {
    prop::sample::select(vec![',', ' ', '!', '&', '^'])
}

fn read(text: &str) -> Set {
    expand(text).unwrap_or_else(|error| panic!("{error}")).into_iter().collect()
}

/// A set of these names, also when they are none.
fn write(names: &Set) -> String {
    format!("({})", fold(names))
}

/// What a text with operators means, worked off by hand.
fn by_hand(first: &Set, rest: &[(char, Set)]) -> Set {
    rest.iter().fold(first.clone(), |so_far, (operator, next)| match operator {
        '!' => &so_far - next,
        '&' => &so_far & next,
        '^' => &so_far ^ next,
        _ => &so_far | next,
    })
}

proptest! {
    #[test]
    fn expand_undoes_fold(names in names()) {
        let text = fold(&names);
        let expanded = expand(&text).expect("what fold writes is a set");
        let count = expanded.len();
        let expanded: Set = expanded.into_iter().collect();
        prop_assert_eq!(expanded.len(), count, "no name twice in {}", text);
        prop_assert_eq!(&expanded, &names.iter().cloned().collect::<Set>());
        prop_assert_eq!(fold(&expanded), text, "folding does not depend on the order");
        let stepped = fold_stepped(&expanded, 3);
        prop_assert_eq!(read(&stepped), expanded, "{}", stepped);
    }

    #[test]
    fn brackets_come_back_as_they_were(
        sizes in prop::collection::vec(2u32..5, 1..4),
        padded in any::<bool>(),
    ) {
        let width = if padded { 2 } else { 1 };
        let bracket = |size: &u32| format!("n[{:0width$}-{size:0width$}]", 1);
        let text: String = sizes.iter().map(bracket).collect();
        prop_assert_eq!(fold(read(&text)), text);
    }

    #[test]
    fn operators_are_worked_off_from_the_left(
        first in few(),
        rest in prop::collection::vec((operator(), few()), 0..8),
    ) {
        let mut text = write(&first);
        for (operator, next) in &rest {
            text.push_str(&format!("{operator}{}", write(next)));
        }
        prop_assert_eq!(read(&text), by_hand(&first, &rest), "{}", text);
    }

    #[test]
    fn laws(a in few(), b in few(), c in few()) {
        let [a, b, c] = [&a, &b, &c].map(write);
        let law = |x: &str, y: &str| {
            let put = |text: &str| text.replace('A', &a).replace('B', &b).replace('C', &c);
            (put(x), put(y))
        };
        let laws = [
            law("A,B", "B,A"),
            law("A,(B,C)", "A,B,C"),
            law("A&B", "B&A"),
            law("A&(B&C)", "A&B&C"),
            law("A^B", "B^A"),
            law("A^(B^C)", "A^B^C"),
            law("A^B", "(A!B),(B!A)"),
            law("A&(B,C)", "(A&B),(A&C)"),
            law("A!(B,C)", "A!B!C"),
            law("A!(B&C)", "(A!B),(A!C)"),
            law("A!A", "()"),
            law("A,()", "A"),
            law("A&A", "A,A"),
            law("A!B,(A&B)", "A"),
        ];
        for (x, y) in laws {
            prop_assert_eq!(read(&x), read(&y), "{} and {}", x, y);
        }
    }

    #[test]
    fn any_text_is_a_set_or_an_error(text in "[a-b0-9\\[\\],/ !&^@:*?(){}.#=<>|\"\\\\-]{0,24}") {
        match parse(&text) {
            Ok(_) => drop(expand(&text)),
            Err(error) => prop_assert!(error.column <= text.chars().count() + 1, "{}", error),
        }
    }

    #[test]
    fn even_garbage_is(text in any::<String>()) {
        drop(parse(&text));
        drop(expand(&text));
    }

    #[test]
    fn groups_stand_for_their_members(
        names in few(),
        groups in prop::collection::vec(few(), 0..5),
    ) {
        let group = |(i, hosts): (usize, &Set)| Group {
            name: format!("@g{i}"),
            hosts: hosts.iter().cloned().collect(),
        };
        let list: Vec<Group> = groups.iter().enumerate().map(group).collect();
        let mut text = regroup(names.iter().map(String::as_str), &list);
        for (i, hosts) in groups.iter().enumerate() {
            text = text.replace(&format!("@g{i}"), &write(hosts));
        }
        prop_assert_eq!(read(&text), names);
    }

    #[test]
    fn natural_order_is_an_order(a in "[a0-2.]{0,4}", b in "[a0-2.]{0,4}", c in "[a0-2.]{0,4}") {
        prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
        prop_assert_eq!(natural_cmp(&a, &b).is_eq(), a == b);
        if natural_cmp(&a, &b).is_lt() && natural_cmp(&b, &c).is_lt() {
            prop_assert!(natural_cmp(&a, &c).is_lt());
        }
    }
}
