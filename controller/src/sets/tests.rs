//! Tests of `sets`.

use std::collections::HashSet;

use super::*;

fn check(text: &str, expected: &str) {
    let names = expand(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(names.join(" "), expected, "{text}");
}

fn check_fold(names: &str, expected: &str) {
    assert_eq!(fold(names.split_whitespace()), expected);
}

#[test]
fn expands() {
    check("", "");
    check(" \n", "");
    check("()", "");
    check("web1", "web1");
    check("web[1-3,5,008-010/2]", "web1 web2 web3 web5 web008 web010");
    check("n[08-11]", "n08 n09 n10 n11");
    check("n[08-101/31]", "n08 n39 n70 n101");
    check("web[1, 3 ]", "web1 web3");
    check("r[1-2]-n[1-2].a", "r1-n1.a r1-n2.a r2-n1.a r2-n2.a");
    check("a,b c , d\te", "a b c d e");
    check("b a b a[1-2] a1", "b a a1 a2");
    check("root@n[1-2]", "root@n1 root@n2");
    check("n[0-0]", "n0");
}

#[test]
fn operators_go_from_left_to_right() {
    check("n[1-5]!n[2-3]", "n1 n4 n5");
    check("n[1-5]&n[4-9]", "n4 n5");
    check("n[1-3]^n[2-5]", "n1 n4 n5");
    check("n[1-3] ! n2 , n2", "n1 n3 n2");
    check("n[1-3],n4!n[1-4]&n1", "");
    check("n[1-3]!(n[1-2],n3!n2)", "n2");
    check("n[1-9]&(n[2-5]!n3)^n[4-6]", "n2 n6");
    check("n[1-4]!n1!n2 n9", "n3 n4 n9");
    check("(a,b)&(b,c)", "b");
    check("((a))", "a");
    check("a!a", "");
    check("a^a^a", "a");
}

#[test]
fn terms_of_every_kind() {
    let kinds = |text: &str| -> Vec<String> {
        let set = parse(text).unwrap_or_else(|error| panic!("{error}"));
        let kind = |(op, term): &(Op, Term<'_>)| {
            let what = match &term.what {
                What::Names(_) => "names".into(),
                What::Glob(_) => "glob".into(),
                What::Regex(regex) => format!("regex {regex}"),
                What::File(path) => format!("file {path}"),
                What::Labels(predicate) => format!("labels {}", predicate.labels().join("+")),
                What::Group(source, name) => format!("group {source:?} {}", name.names().join("+")),
                What::Set(set) => format!("set of {}", set.terms.len()),
            };
            format!("{op:?} {what}")
        };
        set.terms.iter().map(kind).collect()
    };
    let check = |text: &str, expected: &[&str]| assert_eq!(kinds(text), expected, "{text}");
    check("web*", &["Or glob"]);
    check("w?b[1-2]", &["Or glob"]);
    check("/^web[0-9]{1,2}$/!db", &["Or regex ^web[0-9]{1,2}$", "Minus names"]);
    check(r"/a\/b/ c", &[r"Or regex a\/b", "Or names"]);
    check("{os=d* && (mem>=64G||!gpu)}&@up", &["Or labels os+mem+gpu", "And group None up"]);
    check("^/tmp/hosts^a", &["Or file /tmp/hosts", "Xor names"]);
    check("a ^b", &["Or names", "Xor names"]);
    check("a,^b^^c", &["Or names", "Or file b", "Xor file c"]);
    check("@*", &["Or group None *"]);
    check("@lyon", &["Or group None lyon"]);
    check("@site:lyon&@up", &["Or group Some(\"site\") lyon", "And group None up"]);
    check("@racks:r[1-2]", &["Or group Some(\"racks\") r1+r2"]);
    check("@r[1-2]", &["Or group None r1+r2"]);
    check("@run:last/failed", &["Or group Some(\"run\") last/failed"]);
    check("(a,@b)!^-", &["Or set of 2", "Minus file -"]);
}

#[test]
fn errors_name_the_place() {
    let check = |text: &str, column: usize, says: &str| {
        let error = expand(text).expect_err(text);
        assert_eq!(error.column, column, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    check("web[1-3", 4, "never closed");
    check("web1-3]", 7, "no `[`");
    check("a[1[2]]", 4, "inside brackets");
    check("a,,b", 3, "no name");
    check(",a", 1, "no name");
    check("a, ", 2, "no name");
    check("a[]", 3, "missing");
    check("a[1,]", 5, "missing");
    check("a[1-]", 5, "missing");
    check("x,a[1-b]", 7, "\"b\" is not a number");
    check("a[3-1]", 3, "3 is after 1");
    check("a[1-010]", 3, "different widths");
    check("a[010-20]", 3, "different widths");
    check("a[1-5/0]", 7, "step");
    check("a[1234567890123456789]", 3, "18 digits");
    check("a!", 2, "operator `!` needs");
    check("!a", 1, "operator `!` needs");
    check("a & ^", 5, "a file is missing");
    check("a!&b", 3, "operator `&` needs");
    check("(a,b", 1, "parenthesis is never closed");
    check("a)", 2, "no `(`");
    check("(a,)", 3, "no name");
    check("a(b)", 2, "an operator is missing");
    check("(a)b", 4, "an operator is missing");
    check("/a", 1, "no `/` at its end");
    check("x,/(/", 3, "regular expression is wrong: unclosed group");
    check(&format!("/{}/", "a".repeat(513)), 1, "more than 512");
    check("/(a{999}){999}/", 1, "regular expression is wrong");
    check("@", 1, "a group is missing");
    check("@site:", 1, "a group is missing");
    check("@:x", 1, "a group is missing");
    check("a,@si/te:x", 6, "'/' cannot be part");
    check("a,@x", 3, "@x is not a name");
    check("web*", 1, "web* is not a name");
    check("a!{os=debian}", 3, "{os=debian} is not a name");
    check("é\u{1b}", 1, "cannot be part");
    check("ok,a/b", 5, "'/' cannot be part");
    check("x a[1-1000][1-1001]", 3, "more than 1000000");
    check("a[1-600000],(b[1-600000])", 14, "more than 1000000");
    check("a[0-999999999999999999][0-999999999999999999]", 1, "more than 1000000");
    check("@a[1-999999999]x[1-999999999]", 1, "more than 1000000");
    check(&"a".repeat(256), 1, "at most 255");
    check(&format!("a{}", "[1]".repeat(17)), 1, "at most 16 brackets");
    check(&"(".repeat(1_000_000), 33, "at most 32 deep");
    let long = format!("{}[", "a,".repeat(100));
    let shown = expand(&long).expect_err("open").to_string();
    assert!(shown.len() < 150 && shown.contains("..."), "{shown}");
}

#[test]
fn the_limit_is_a_million() {
    assert_eq!(expand("n[1-1000000]").map(|names| names.len()), Ok(1_000_000));
}

#[test]
fn folds_as_clustershell_does() {
    check_fold("", "");
    check_fold("web3 web1 web2 web5", "web[1-3,5]");
    check_fold("web1", "web1");
    check_fold("db web1 db", "db,web1");
    check_fold("n08 n09 n10 n11", "n[08-11]");
    check_fold("n8 n9 n10 n008 n009 n010", "n[8-10,008-010]");
    check_fold("n1 n2 n01 n02 n10", "n[1-2,01-02,10]");
    check_fold("n099 n100 n101", "n[099-101]");
    check_fold("n98 n99 n100 n099", "n[98-99,099-100]");
    check_fold("n9 n10 n08 n09 n100", "n[9,08-10,100]");
    check_fold("n0 n00", "n[0,00]");
    check_fold("n1-ib n2-ib n2", "n2,n[1-2]-ib");
    check_fold("web10 web2 web1 abc Web1 zeta web", "Web1,abc,web,web[1-2,10],zeta");
    check_fold("1 2 3", "[1-3]");
    check_fold("10.0.0.1 10.0.0.2", "10.0.0.[1-2]");
    check_fold(
        "v12345678901234567890 v12345678901234567891",
        &["v12345678901234567890", "v12345678901234567891"].join(","),
    );
}

#[test]
fn folds_with_steps_if_there_are_enough() {
    let check = |set: &str, least: usize, expected: &str| {
        assert_eq!(fold_stepped(expand(set).expect("a set"), least), expected);
    };
    check("n[0-20/5]", 3, "n[0-20/5]");
    check("n[0-20/5]", 6, "n[0,5,10,15,20]");
    check("n[1,3,5-8,20]", 3, "n[1-5/2,6-8,20]");
    check("n[1,3,4,5]", 3, "n[1,3-5]");
    check("n[002-102/10]", 3, "n[002-102/10]");
    check("r[1-5/2]n[1-5/2]", 2, "r[1-5/2]n[1-5/2]");
}

#[test]
fn folds_in_several_dimensions() {
    let check = |set: &str| assert_eq!(fold(expand(set).expect("a set")), set);
    check("site[1-2]-host[1-5]");
    check("rack[1-2]n[1-3],rack3n1");
    check("n1x[1-3],n2x[1-2]");
    check("r[1-2]-n0001-x2,r1-n0002-x2");
    check("a[1-2]b[3-4],a5b9");
    check("foo[1-2]bar[01-02],foo1bar1");
    check("a[1-3]b[1-3]c[1-3]d[1-3]");
    check("a[1-100]b1,a7b2");
    let many = format!("{}[1-2]", "0x".repeat(17));
    assert_eq!(expand(&fold(expand(&many).expect("a set"))).map(|names| names.len()), Ok(2));
}

/// A bound for an unoptimised build on a busy machine; `barid bench sets` has the figures.
#[test]
fn ten_thousand_irregular_names_fold_and_expand() {
    let texts = (0..10_000u64).map(|i| i * i * 7919 % 100_003);
    let names: Vec<String> = texts.map(|i| format!("r{}-n{i:04}-x{}", i % 97, i % 3)).collect();
    let folded = fold(&names);
    let expanded: HashSet<String> = expand(&folded).expect("a set").into_iter().collect();
    assert_eq!(expanded, names.into_iter().collect());
}
