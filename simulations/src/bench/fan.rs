//! One file to every host behind one relay, over loopback: what it costs the relay, beside nginx.
//!
//! The relay takes the file from the controller once, checks it, keeps it, and serves it to hosts
//! that write it down. nginx serves a file that is there to as many curl processes that throw it
//! away. All of them share the processors, so the time to the last says how fast the machine is;
//! what compares is the server's own processor time for each gigabyte, and its memory.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::fleet::{Bench, relay};
use crate::machine::timed;
use crate::proc::{self, Usage};
use crate::{push, ssh, table};

/// Hosts, and the MiB that each gets: the same bytes in all.
const SHAPES: [(usize, usize); 2] = [(100, 16), (10, 160)];
const SEED: u64 = 20_261_126;
/// nginx is where `root` has it, whatever the path of who calls.
const NGINX: &str = "/usr/sbin/nginx";
const LIMIT: Duration = Duration::from_secs(120);

/// What one server has cost.
struct Cost {
    what: &'static str,
    clients: usize,
    mib: usize,
    took: Duration,
    server: Usage,
    /// The most memory that the server had, in KiB.
    memory: u64,
}

/// Measures both shapes.
pub(crate) fn measure(barid: &Path, work: &Path) -> Result<()> {
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for (clients, mib) in SHAPES {
        let source = work.join(format!("fan-{mib}"));
        fs::create_dir_all(&source)?;
        fs::write(source.join("file"), tests::noise(SEED, mib << 20))?;
        rows.push(by_relay(barid, &source, clients, mib)?);
        if let Some(missing) = missing() {
            skipped.push(format!("nginx: {missing} is not installed here"));
            continue;
        }
        let nginx = Nginx::start(work.join(format!("nginx-{mib}")), &source)?;
        for (what, url) in nginx.urls() {
            rows.push(nginx.serve(what, &url, clients, mib)?);
        }
    }
    table::heading("One file to all hosts of a relay, over loopback");
    let head = [
        "server",
        "clients",
        "file",
        "to the last",
        "all of them, MB/s",
        "server: processor time",
        "s for each GB",
        "peak memory",
    ];
    table::print(&head, &rows.iter().map(Cost::row).collect::<Vec<_>>());
    skipped.dedup();
    if !skipped.is_empty() {
        println!("\nSkipped: {}.", skipped.join("; "));
    }
    Ok(())
}

impl Cost {
    fn row(&self) -> Vec<String> {
        let gigabytes = (self.clients * (self.mib << 20)) as f64 / 1e9;
        vec![
            self.what.to_owned(),
            self.clients.to_string(),
            format!("{} MiB", self.mib),
            table::time(self.took),
            format!("{:.0}", gigabytes * 1e3 / self.took.as_secs_f64()),
            table::time(self.server.own),
            format!("{:.2}", self.server.own.as_secs_f64() / gigabytes),
            table::memory(self.memory),
        ]
    }
}

fn by_relay(barid: &Path, source: &Path, clients: usize, mib: usize) -> Result<Cost> {
    let mut bench = Bench::start(barid, &[clients])?;
    let pid = bench.fleet.pid(&relay(1))?;
    let before = Usage::of(pid)?;
    let everybody = json!({ "all": true });
    let (took, ()) = timed(|| push::deliver(&mut bench, source, &everybody))?;
    let (server, memory) = (Usage::of(pid)?.since(&before), proc::peak(pid)?);
    Ok(Cost { what: "barid, a relay to hosts", clients, mib, took, server, memory })
}

/// What nginx and its clients need that is not here.
fn missing() -> Option<&'static str> {
    if !Path::new(NGINX).is_file() {
        return Some("nginx");
    }
    ["curl", "openssl", "setpriv"].into_iter().find(|name| !ssh::is_program(name))
}

/// A server that ends with this process.
struct Nginx {
    dir: std::path::PathBuf,
    child: Child,
    /// Plain, and with TLS.
    ports: [u16; 2],
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Nginx {
    fn start(dir: std::path::PathBuf, root: &Path) -> Result<Nginx> {
        fs::create_dir_all(&dir)?;
        // Free now; nobody else is after them.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
        let ports = [free()?.port(), free()?.port()];
        let (at, root) = (dir.display(), root.display());
        let status = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout"])
            .arg(dir.join("key"))
            .arg("-out")
            .arg(dir.join("certificate"))
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "openssl: {status}");
        let [plain, tls] = ports;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\naccess_log off;\nsendfile on;\n{temporary}\
             server {{\nlisten 127.0.0.1:{plain};\nlisten 127.0.0.1:{tls} ssl;\n\
             ssl_certificate {at}/certificate;\nssl_certificate_key {at}/key;\n\
             root {root};\n}}\n}}\n"
        );
        fs::write(dir.join("config"), config)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", NGINX, "-p"])
            .arg(&dir)
            .arg("-e")
            .arg(dir.join("log"))
            .arg("-c")
            .arg(dir.join("config"))
            .stdin(Stdio::null())
            .spawn()
            .context("starting nginx under setpriv")?;
        let nginx = Nginx { dir, child, ports };
        tests::wait_for("nginx", tests::LIMIT, || {
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, plain)).ok())
        })?;
        Ok(nginx)
    }

    fn urls(&self) -> [(&'static str, String); 2] {
        let [plain, tls] = self.ports;
        [
            ("nginx with TLS, to curl", format!("https://127.0.0.1:{tls}/file")),
            ("nginx without, to curl", format!("http://127.0.0.1:{plain}/file")),
        ]
    }

    fn serve(&self, what: &'static str, url: &str, clients: usize, mib: usize) -> Result<Cost> {
        let pid = self.child.id();
        let before = Usage::of(pid)?;
        let script = format!(
            "for n in $(seq {clients}); do\n\
             curl -s -f -k -o /dev/null {url} & all=\"$all $!\"\ndone\n\
             for one in $all; do wait $one; done"
        );
        let log = self.dir.join("clients");
        let took = ssh::run(Command::new("bash"), &log, &script, &[], LIMIT)?;
        let took = took.with_context(|| format!("{what}: not over after {} s", LIMIT.as_secs()))?;
        let (server, memory) = (Usage::of(pid)?.since(&before), proc::peak(pid)?);
        Ok(Cost { what, clients, mib, took, server, memory })
    }
}
