//! The bus: messages between programs on any nodes, to whoever wants them and to nobody else.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Fleet, LIMIT, Lines, Spec, connect, show, wait_for};

use crate::metrics::scrape;

/// `barid bus` at a node.
pub(super) fn bus(fleet: &Fleet, node: &str, args: &[&str]) -> Result<std::process::Command> {
    let socket = fleet.state(node).join("node.sock");
    let socket = socket.to_str().context("a path")?.to_owned();
    Ok(fleet.command(&[&["--json", "bus", "--node", &socket], args].concat()))
}

/// Publishes, and returns whether anybody wants it.
pub(super) fn publish(fleet: &Fleet, node: &str, subject: &str, data: &str) -> Result<bool> {
    let output = bus(fleet, node, &["pub", subject, data])?.output()?;
    ensure!(output.status.success(), "{}", show(&output.stderr));
    let heard: Value = serde_json::from_slice(&output.stdout)?;
    heard["heard"].as_bool().context("whether it is heard")
}

/// Waits until a node knows that somebody wants a subject, or that nobody does.
pub(super) fn wait_heard(fleet: &Fleet, node: &str, subject: &str, wanted: bool) -> Result<()> {
    wait_for(&format!("{subject} to be heard at {node}: {wanted}"), LIMIT, || {
        Ok((publish(fleet, node, subject, "probe")? == wanted).then_some(()))
    })
}

/// Somebody who has subscribed. He ends with the test.
pub(super) struct Subscriber {
    child: Child,
    lines: Lines,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Subscriber {
    pub(super) fn new(fleet: &Fleet, node: &str, patterns: &[&str]) -> Result<Subscriber> {
        Subscriber::of(bus(fleet, node, &[&["sub"], patterns].concat())?)
    }

    /// Whoever is started by this.
    pub(super) fn of(mut command: std::process::Command) -> Result<Subscriber> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let lines = Lines::of(child.stdout.take().context("its output")?);
        let subscriber = Subscriber { child, lines };
        let ready = subscriber.line()?;
        ensure!(ready["ready"].is_array(), "{ready}");
        Ok(subscriber)
    }

    pub(super) fn line(&self) -> Result<Value> {
        let line = self.lines.next_line()?;
        serde_json::from_str(&line).with_context(|| format!("a line: {line:?}"))
    }

    /// The next message that is no probe.
    pub(super) fn message(&mut self) -> Result<Value> {
        loop {
            let mut line = self.line()?;
            ensure!(line["message"].is_object(), "{line}");
            if line["message"]["data"] != "probe" {
                return Ok(line["message"].take());
            }
        }
    }
}

/// Bytes of the bus that a node has sent up.
fn sent_up(fleet: &Fleet, node: &str, parent: &str) -> Result<f64> {
    let page = scrape(fleet, node, "/metrics")?;
    let labels = [("side", "parent"), ("peer", parent), ("dir", "sent"), ("class", "bus")];
    page.value("barid_link_bytes_total", &labels).context("what was sent")
}

#[test]
fn a_message_reaches_who_wants_it_and_crosses_no_link_for_nothing() -> Result<()> {
    let mut fleet = Fleet::tree(2, 2)?;
    let mut far = Subscriber::new(&fleet, "site1-host1", &["app.*.state"])?;
    wait_heard(&fleet, "site2-host1", "app.web.state", true)?;
    let mut root = Subscriber::new(&fleet, "controller", &["app.>"])?;
    wait_heard(&fleet, "site2-host1", "app.other", true)?;
    assert!(publish(&fleet, "site2-host1", "app.web.state", "up")?);
    let message = far.message()?;
    assert_eq!((&message["data"], &message["node"]), (&"up".into(), &"site2-host1".into()));
    assert_eq!(root.message()?["data"], "up");
    // What the controller alone wants goes no further than there.
    let down = || -> Result<f64> {
        let page = scrape(&fleet, "site1-relay", "/metrics")?;
        let labels = [("side", "host"), ("dir", "sent"), ("class", "bus")];
        page.value("barid_link_bytes_total", &labels).context("what was sent")
    };
    let before = (down()?, sent_up(&fleet, "site2-host1", "site2-relay")?);
    assert!(publish(&fleet, "site2-host1", "app.web", &"x".repeat(10_000))?);
    assert_eq!(root.message()?["data"].as_str().map(str::len), Some(10_000));
    let after = (down()?, sent_up(&fleet, "site2-host1", "site2-relay")?);
    assert!(after.0 == before.0 && after.1 > before.1 + 10_000.0, "{before:?} {after:?}");
    // What nobody wants does not leave the host.
    for n in 0..20 {
        assert!(!publish(&fleet, "site2-host1", &format!("other.{n}"), &"x".repeat(10_000))?);
    }
    assert_eq!(sent_up(&fleet, "site2-host1", "site2-relay")?, after.1);
    // Nor what nobody wants any more.
    drop((far, root));
    wait_heard(&fleet, "site2-host1", "app.web.state", false)?;
    // Who is cut off still has himself.
    fleet.kill("site1-relay")?;
    let mut alone = Subscriber::new(&fleet, "site1-host1", &["here"])?;
    assert!(publish(&fleet, "site1-host1", "here", "still")?);
    assert_eq!(alone.message()?["data"], "still");
    // And is a part of it all when he is back.
    fleet.restart("site1-relay")?;
    wait_heard(&fleet, "controller", "here", true)?;
    assert!(publish(&fleet, "controller", "here", "again")?);
    assert_eq!(alone.message()?["data"], "again");
    Ok(())
}

#[test]
fn a_request_has_as_many_answers_as_are_wanted_and_ends_in_time() -> Result<()> {
    let fleet = Fleet::tree(1, 2)?;
    let mut one = Subscriber::new(&fleet, "site1-host1", &["ask.who"])?;
    let mut two = Subscriber::new(&fleet, "site1-host2", &["ask.>"])?;
    wait_heard(&fleet, "controller", "ask.who", true)?;
    // And the other one, who wants more than that.
    wait_heard(&fleet, "controller", "ask.else", true)?;
    let args = ["req", "ask.who", "who is there", "--most", "2", "--deadline", "60s"];
    let asking = bus(&fleet, "controller", &args)?.stdout(Stdio::piped()).spawn()?;
    for (subscriber, node) in [(&mut one, "site1-host1"), (&mut two, "site1-host2")] {
        let message = subscriber.message()?;
        assert_eq!(message["data"], "who is there");
        let request = message["request"].as_str().context("a request")?.to_owned();
        let output = bus(&fleet, node, &["answer", &request, node])?.output()?;
        ensure!(output.status.success(), "{}", show(&output.stderr));
    }
    let output = asking.wait_with_output()?;
    assert!(output.status.success());
    let lines = show(&output.stdout);
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let mut said: Vec<_> = lines[..2].iter().map(|l| l["answer"]["data"].clone()).collect();
    said.sort_by_key(ToString::to_string);
    assert_eq!(said, ["site1-host1", "site1-host2"]);
    assert_eq!(lines[2]["end"]["why"], "enough");
    // Nobody answers in time, and nobody is there to answer.
    let ends = |subject: &str, why: &str| -> Result<()> {
        let args = ["req", subject, "x", "--deadline", "100ms"];
        let output = bus(&fleet, "controller", &args)?.output()?;
        let end: Value = serde_json::from_slice(&output.stdout)?;
        assert_eq!((&end["end"]["why"], output.status.code()), (&why.into(), Some(3)), "{end}");
        Ok(())
    };
    ends("ask.who", "deadline")?;
    ends("nobody.there", "nobody")
}

#[test]
fn what_is_wrong_is_named_and_goes_nowhere() -> Result<()> {
    let fleet = Fleet::tree(1, 1)?;
    let check = |args: &[&str], code: i32, text: &str| -> Result<()> {
        let output = bus(&fleet, "site1-host1", args)?.output()?;
        let (status, said) = (output.status.code(), show(&output.stderr));
        ensure!(status == Some(code) && said.contains(text), "{args:?}: {status:?} {said}");
        ensure!(!said.contains('\x1b'), "{said:?}");
        Ok(())
    };
    check(&["pub", "a..b", "x"], 2, "a word of it is empty")?;
    check(&["pub", "\x1b[31m", "x"], 2, "not printable ASCII")?;
    check(&["pub", "a.*", "x"], 2, "neither stands in a subject")?;
    check(&["pub", &"a.".repeat(200), "x"], 2, "255 bytes")?;
    check(&["sub", "a.>.b"], 2, "is no pattern")?;
    check(&["pub", "a", &"x".repeat(65_537)], 2, "65536")?;
    check(&["answer", "what", "x"], 2, "is not what a message says in `request`")?;
    let nowhere = fleet.command(&["bus", "--node", "/nowhere", "pub", "a", "x"]).output()?;
    assert_eq!(nowhere.status.code(), Some(6), "{}", show(&nowhere.stderr));
    Ok(())
}

/// Publishes over one connection, as a program would.
pub(super) struct Publisher(pub(super) UnixStream);

impl Publisher {
    /// Returns whether anybody wants it.
    pub(super) fn publish(&mut self, subject: &str, data: &[u8]) -> Result<bool> {
        let head = format!(
            "POST /v1/bus/pub?subject={subject} HTTP/1.1\r\nhost: barid\r\n\
             content-length: {}\r\n\r\n",
            data.len()
        );
        self.0.write_all(head.as_bytes())?;
        self.0.write_all(data)?;
        let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(b"}") {
            let count = self.0.read(&mut piece)?;
            ensure!(count > 0, "the connection has ended: {}", show(&answer));
            answer.extend_from_slice(&piece[..count]);
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", show(&answer));
        Ok(answer.ends_with(b"{\"heard\":true}"))
    }
}

#[test]
fn who_reads_nothing_hurts_nobody_and_what_is_dropped_is_counted() -> Result<()> {
    const COUNT: usize = 6_000;
    let fleet = Fleet::tree(1, 2)?;
    // He has asked, and reads nothing.
    let mut deaf = connect(fleet.state("site1-host1").join("node.sock"))?;
    write!(
        deaf,
        "POST /v1/bus/sub?subject=flood HTTP/1.1\r\nhost: barid\r\ncontent-length: 0\r\n\r\n"
    )?;
    let reads = Subscriber::new(&fleet, "site1-host1", &["flood", "end"])?;
    wait_heard(&fleet, "site1-host2", "flood", true)?;
    let socket = fleet.state("site1-host2").join("node.sock");
    let mut publisher = Publisher(connect(socket)?);
    let reading = std::thread::spawn(move || -> Result<(usize, u64)> {
        let (mut count, mut missed) = (0, 0);
        loop {
            let line = reads.line()?;
            missed += line["missed"].as_u64().unwrap_or_default();
            match line["message"]["subject"].as_str() {
                Some("end") => return Ok((count, missed)),
                Some(_) if line["message"]["data"] != "probe" => count += 1,
                _ => {}
            }
        }
    });
    let body = vec![b'x'; 2_000];
    for _ in 0..COUNT {
        publisher.publish("flood", &body)?;
    }
    // Meanwhile orders go on.
    assert!(fleet.barid(&["run", "-a", "true"])?.status.success());
    // The last word may itself find no room in a queue, so it is said until it is heard.
    let mut ends = 0;
    wait_for("the last word", LIMIT, || {
        publisher.publish("end", b"")?;
        ends += 1;
        Ok(reading.is_finished().then_some(()))
    })?;
    let (count, missed) = reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let dropped = |node: &str, place: &str| -> Result<f64> {
        let page = scrape(&fleet, node, "/metrics")?;
        Ok(page.value("barid_bus_dropped_total", &[("for", place)]).unwrap_or_default())
    };
    let by_links = dropped("site1-host2", "link")? + dropped("site1-relay", "link")?;
    let by_readers = dropped("site1-host1", "subscriber")?;
    assert!(by_readers >= 1_000.0, "who reads nothing loses most of it: {by_readers}");
    // Some of the last words may be among what was dropped.
    let all = count as u64 + missed + by_links as u64;
    assert!(all >= COUNT as u64 && all <= COUNT as u64 + ends, "nothing is lost uncounted: {all}");
    let event = wait_for("the drop to be an event", LIMIT, || {
        let output = fleet.barid(&["events", "--json", "--since", "1h", "bus.dropped"])?;
        let lines = show(&output.stdout);
        let first = lines.lines().next().map(serde_json::from_str::<Value>).transpose()?;
        Ok(first)
    })?;
    assert!(event["count"].as_u64() > Some(0) && event["severity"] == "warning", "{event:#}");
    drop(deaf);
    Ok(())
}

#[test]
fn other_users_may_what_the_policy_says() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return Ok(());
    }
    const NOBODY: u32 = 65_534;
    let mut fleet = Fleet::new()?;
    let socket = fleet.path().join("bus.sock");
    let config = format!("[bus]\nsocket = \"{}\"\n", socket.display());
    fleet.add(&Spec {
        role: "host",
        name: "web1".into(),
        site: String::new(),
        parents: vec!["controller".into()],
        config,
    })?;
    fs::set_permissions(fleet.path(), fs::Permissions::from_mode(0o755))?;
    // The binary may lie where that user cannot go.
    let program = fleet.path().join("barid");
    fs::copy(tests::binary()?, &program)?;
    let path = socket.to_str().context("a path")?.to_owned();
    let publish = |subject: &str| -> Result<(Option<i32>, String)> {
        let mut command = std::process::Command::new(&program);
        command.args(["bus", "--node", &path, "pub", subject, "x"]).uid(NOBODY).gid(NOBODY);
        let output = command.output()?;
        Ok((output.status.code(), show(&output.stderr)))
    };
    wait_for("the socket", LIMIT, || Ok(socket.exists().then_some(())))?;
    let (code, said) = publish("app.x")?;
    assert!(code == Some(5) && said.contains("may not publish"), "{code:?} {said}");
    let policy = "[[allow]]\nusers = [\"nobody\"]\npublish = [\"app.>\"]\n";
    fs::write(fleet.state("web1").join("bus.toml"), policy)?;
    let (code, said) = publish("app.x")?;
    assert!(code == Some(0), "{code:?} {said}");
    let (code, said) = publish("other.x")?;
    assert!(code == Some(5) && said.contains("user 65534 may not publish"), "{code:?} {said}");
    // Metrics are not to be had there.
    let mut stream = connect(&socket)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    Ok(())
}
