//! Alerts that leave by TLS: to the receiver that an authority vouches for, and to nobody else.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tests::{Fleet, LIMIT, show, wait_for};

use crate::alerts::{give, wait_alerts, wait_channels};
use crate::witness::{Heard, PATIENCE, Session};

/// Somebody called localhost, whose certificate is its own authority.
struct Receiver {
    ca_file: PathBuf,
    config: Arc<ServerConfig>,
}

impl Receiver {
    fn new(dir: &Path, name: &str) -> Result<Receiver> {
        let key = rcgen::generate_simple_self_signed(["localhost".into()])?;
        let ca_file = dir.join(format!("{name}.pem"));
        fs::write(&ca_file, key.cert.pem())?;
        let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], secret.into())?;
        Ok(Receiver { ca_file, config: Arc::new(config) })
    }

    /// Serves each connection in a thread of its own.
    fn listen(
        &self,
        serve: impl Fn(TcpStream, Arc<ServerConfig>) -> Option<()> + Clone + Send + 'static,
    ) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (addr, config) = (listener.local_addr()?, self.config.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serve, config) = (serve.clone(), config.clone());
                stream.set_read_timeout(Some(PATIENCE)).ok();
                std::thread::spawn(move || serve(stream, config));
            }
        });
        Ok(addr)
    }

    /// A receiver of syslog: all lines of each connection.
    fn syslog(&self) -> Result<(u16, Heard<String>)> {
        let texts = Heard::default();
        let heard = texts.clone();
        let addr = self.listen(move |stream, config| {
            let mut stream = secured(stream, config)?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            heard.push(text);
            stream.conn.send_close_notify();
            stream.flush().ok()
        })?;
        Ok((addr.port(), texts))
    }

    /// A mail server: the mails, all that was said to it in the clear, and all that was not.
    fn mail(&self, starttls: bool) -> Result<(u16, MailHeard)> {
        let all = MailHeard::default();
        let heard = all.clone();
        let addr = self.listen(move |stream, config| {
            let stream = if starttls {
                let mut session = Session::new(stream, &heard.mails, true);
                session.say("220 witness ESMTP")?;
                let wants_tls = session.serve();
                session.said.drain(..).for_each(|line| heard.clear.push(line));
                wants_tls?;
                session.into_stream()
            } else {
                stream
            };
            let mut session = Session::new(secured(stream, config)?, &heard.mails, false);
            if !starttls {
                session.say("220 witness ESMTP")?;
            }
            session.serve();
            session.said.drain(..).for_each(|line| heard.secret.push(line));
            Some(())
        })?;
        Ok((addr.port(), all))
    }
}

#[derive(Clone, Default)]
struct MailHeard {
    mails: Heard<String>,
    clear: Heard<String>,
    secret: Heard<String>,
}

/// The stream once both have agreed on TLS.
fn secured(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Option<StreamOwned<ServerConnection, TcpStream>> {
    let mut conn = ServerConnection::new(config).ok()?;
    conn.complete_io(&mut stream).ok()?;
    Some(StreamOwned::new(conn, stream))
}

#[test]
fn alerts_leave_by_tls_to_who_is_vouched_for_and_to_nobody_else() -> Result<()> {
    let mut fleet = Fleet::tree(1, 1)?;
    let dir = fleet.path().to_owned();
    let (known, other) = (Receiver::new(&dir, "known")?, Receiver::new(&dir, "other")?);
    let password = dir.join("password");
    fs::write(&password, "hush\n")?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
    let (siem, lines) = known.syslog()?;
    let (starttls, by_starttls) = known.mail(true)?;
    let (smtps, by_tls) = known.mail(false)?;
    // Whoever these are: the authority of those above does not know them.
    let (false_siem, false_lines) = other.syslog()?;
    let (false_starttls, by_false_starttls) = other.mail(true)?;
    let (false_smtps, by_false_tls) = other.mail(false)?;
    // And one with whom there is no TLS to be had.
    let (open_addr, open) = crate::witness::mail_server()?;

    let ca = known.ca_file.display();
    let syslog = |name: &str, port: u16| {
        format!("channels.{name}.syslog = {{ tls = \"localhost:{port}\", ca_file = \"{ca}\" }}\n")
    };
    let mail = |name: &str, port: u16, tls: &str| {
        format!(
            "channels.{name}.mail = {{ server = \"localhost\", port = {port}, tls = \"{tls}\", \
             ca_file = \"{ca}\", user = \"barid\", password_file = \"{}\", \
             from = \"barid@example.com\", to = [\"ops@example.com\"] }}\n",
            password.display()
        )
    };
    let channels = [
        syslog("siem", siem),
        mail("starttls", starttls, "starttls"),
        mail("smtps", smtps, "tls"),
        syslog("false-siem", false_siem),
        mail("false-starttls", false_starttls, "starttls"),
        mail("false-smtps", false_smtps, "tls"),
        mail("open", open_addr.port(), "starttls"),
    ];
    give(&fleet, "controller", &channels.concat())?;
    wait_channels(&fleet, 7)?;
    fleet.kill("site1-host1")?;

    let summary = "host site1-host1 lost, below site1-relay";
    let line = wait_for("a line by TLS", LIMIT, || {
        Ok(lines.all().into_iter().find(|line| line.contains(summary)))
    })?;
    let (length, rest) = line.split_once(' ').context("a counted line")?;
    assert_eq!(length.parse::<usize>()?, rest.len(), "{line}");
    assert!(rest.starts_with("<28>1 ") && rest.contains("key=\"host-lost/site1-host1\""), "{line}");
    for heard in [&by_starttls, &by_tls] {
        let mail = wait_for("a mail by TLS", LIMIT, || {
            Ok(heard.mails.all().into_iter().find(|mail| mail.contains(summary)))
        })?;
        assert!(mail.contains("To: ops@example.com"), "{mail}");
        wait_for("the password behind TLS", LIMIT, || {
            Ok(heard.secret.all().iter().any(|line| line.starts_with("AUTH PLAIN ")).then_some(()))
        })?;
    }

    // Who is not vouched for fails, is told, and has heard nothing.
    let failing = ["false-siem", "false-smtps", "false-starttls", "open"];
    let mut keys: Vec<String> =
        failing.iter().map(|name| format!("channel-failing/{name}")).collect();
    keys.push("host-lost/site1-host1".into());
    wait_alerts(&fleet, &keys.iter().map(String::as_str).collect::<Vec<_>>())?;
    for name in failing {
        let output = fleet.barid(&["alerts", "test", name])?;
        let said = show(&output.stderr);
        let why = if name == "open" { "STARTTLS" } else { "invalid peer certificate" };
        ensure!(output.status.code() == Some(1) && said.contains(why), "{name}: {said}");
        wait_for("it to be told by another", LIMIT, || {
            let told = format!("channel {name} takes no alerts");
            Ok(lines.all().iter().any(|line| line.contains(&told)).then_some(()))
        })?;
    }
    let harmless = |line: &String| line.starts_with("EHLO ") || line == "STARTTLS";
    for heard in [&by_starttls, &by_false_starttls] {
        let clear = heard.clear.all();
        ensure!(!clear.is_empty() && clear.iter().all(harmless), "{clear:?}");
    }
    assert_eq!(false_lines.all(), [""; 0]);
    for heard in [&by_false_starttls, &by_false_tls] {
        assert_eq!(heard.mails.all(), [""; 0]);
        assert_eq!(heard.secret.all(), [""; 0]);
    }
    assert_eq!(open.all(), [""; 0]);

    // With an authority that knows them it is over, and what waited arrives.
    let channels = channels[..6]
        .concat()
        .replace(&ca.to_string(), &both(&dir, &known, &other)?.display().to_string());
    give(&fleet, "controller", &channels)?;
    wait_channels(&fleet, 6)?;
    wait_alerts(&fleet, &["host-lost/site1-host1"])?;
    for heard in [&by_false_starttls.mails, &by_false_tls.mails, &false_lines] {
        wait_for("what waited", LIMIT, || {
            Ok(heard.all().iter().any(|text| text.contains(summary)).then_some(()))
        })?;
    }
    Ok(())
}

/// A file with the authorities of both.
fn both(dir: &Path, one: &Receiver, two: &Receiver) -> Result<PathBuf> {
    let path = dir.join("both.pem");
    let text = fs::read_to_string(&one.ca_file)? + &fs::read_to_string(&two.ca_file)?;
    fs::write(&path, text)?;
    Ok(path)
}
