//! The algebra of sets of names: whatever is folded can be expanded again.

use std::collections::BTreeSet;

use controller::sets::{expand, fold, natural_cmp, terms};
use proptest::prelude::*;

/// Names of every shape: several numbers, padding, suffixes, and many that are close.
fn names() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![
        "[a-b]{0,2}[0-9]{1,3}",
        "s[1-2]-h0{0,2}[0-9]{1,2}(-ib)?",
        "[a-c][a-c0-9._-]{0,6}",
        "n[0-9]{17,20}",
    ];
    prop::collection::vec(name, 0..60)
}

proptest! {
    #[test]
    fn expand_undoes_fold(names in names()) {
        let text = fold(&names);
        let expanded = expand(&text).expect("what fold writes is a set");
        let count = expanded.len();
        let expanded: BTreeSet<String> = expanded.into_iter().collect();
        prop_assert_eq!(expanded.len(), count, "no name twice in {}", text);
        prop_assert_eq!(&expanded, &names.iter().cloned().collect::<BTreeSet<_>>());
        prop_assert_eq!(fold(&expanded), text, "folding does not depend on the order");
    }

    #[test]
    fn terms_are_the_whole(names in names()) {
        let text = fold(&names);
        let terms = terms(&text).expect("a set");
        prop_assert_eq!(terms.join(","), text);
    }

    #[test]
    fn any_text_is_a_set_or_an_error(text in "[a-b0-9\\[\\],/ -]{0,24}") {
        match expand(&text) {
            Ok(names) => prop_assert!(names.iter().all(|name| !name.is_empty())),
            Err(error) => prop_assert!(error.column <= text.chars().count() + 1),
        }
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
