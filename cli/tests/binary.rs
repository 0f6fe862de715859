//! The binary as it is built. Cargo builds it for this test, and thereby for the stories of the
//! `tests` crate, which run it beside their own.

use std::process::Command;

fn barid(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_barid")).args(args).output();
    let output = output.expect("the binary starts");
    (output.status.code(), String::from_utf8(output.stdout).expect("plain text"))
}

#[test]
fn it_says_what_it_is_and_what_it_can() {
    let version = format!("barid {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(barid(&["--version"]), (Some(0), version));
    let (code, help) = barid(&["--help"]);
    assert_eq!(code, Some(0));
    let verbs = ["run", "push", "retry", "cancel", "nodes", "hosts", "tree", "node", "demo"];
    assert!(verbs.iter().all(|verb| help.contains(&format!("\n  {verb} "))), "{help}");
}
