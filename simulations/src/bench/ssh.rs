//! Real sshd on every machine of a laboratory, for the tools that need one.
//!
//! All machines share one file system, so each sshd sees a folder of its own at one common path
//! (a bind mount that nobody else sees). The key exchange is curve25519, since OpenSSH's default
//! costs a client a tenth of a second of processor time for each connection.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use simulations::lab::{Lab, Machine};

use crate::machine::limited;

const SSHD: &str = "/usr/sbin/sshd";
/// Debian's sshd wants it to exist.
const PRIVILEGES: &str = "/run/sshd";

/// The servers and what a client needs. They end with it.
pub(crate) struct Ssh {
    dir: PathBuf,
    servers: Vec<Child>,
    made: bool,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill().ok();
            server.wait().ok();
        }
        if self.made {
            fs::remove_dir(PRIVILEGES).ok();
        }
    }
}

/// Whether there is a server to start.
pub(crate) fn is_here() -> bool {
    Path::new(SSHD).is_file() && is_program("ssh") && is_program("ssh-keygen")
}

/// Whether there is such a program.
pub(crate) fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

impl Ssh {
    /// Starts a server on each machine but the root, and waits until all answer.
    pub(crate) fn start(lab: &Lab) -> Result<Ssh> {
        let (dir, own) = (lab.scratch().join("ssh"), own(lab));
        write_configs(&dir, 22)?;
        fs::create_dir_all(&own)?;
        let made = fs::create_dir(PRIVILEGES).is_ok();
        let mut ssh = Ssh { dir, servers: Vec::new(), made };
        for machine in lab.machines().filter(|machine| **machine != lab.root) {
            let theirs = folder(lab, machine);
            fs::create_dir_all(&theirs)?;
            fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755))?;
            let script = "mount --bind \"$1\" \"$2\" && exec \"$3\" -D -f \"$4\"";
            let server = machine
                .command("sh")
                .args(["-c", script, "sshd"])
                .args([&theirs, &own, Path::new(SSHD), &ssh.dir.join("sshd_config")])
                .stdin(Stdio::null())
                .spawn()?;
            ssh.servers.push(server);
        }
        for machine in lab.machines().filter(|machine| **machine != lab.root) {
            let address = SocketAddr::from((machine.address, 22));
            tests::wait_for(&format!("sshd at {address}"), tests::LIMIT, || {
                let limit = Duration::from_secs(2);
                Ok(lab.root.inside(|| TcpStream::connect_timeout(&address, limit)).ok())
            })?;
        }
        Ok(ssh)
    }

    /// Ends the connections that were kept, which would serve the next tool as well.
    pub(crate) fn hang_up(&self, log: &Path, limit: Duration) -> Result<()> {
        let (dir, config) = (self.dir.display(), self.config(true));
        let script = format!(
            "for s in {dir}/*; do if [ -S $s ]; then ssh -F {} -o ControlPath=$s -O exit all; fi; \
             done; true",
            config.display()
        );
        run(Command::new("bash"), log, &script, &[], limit)?;
        Ok(())
    }

    /// The configuration of clients, for `ssh -F`. `kept`: connections stay open for the next.
    pub(crate) fn config(&self, kept: bool) -> PathBuf {
        self.dir.join(if kept { "config-kept" } else { "config" })
    }
}

/// Starts one server for every address of this machine, and waits until it answers. It ends with
/// this process, however that ends.
pub(crate) fn serve_here(dir: PathBuf) -> Result<(Ssh, u16)> {
    // Free now; nobody else is after it.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    write_configs(&dir, port)?;
    let made = fs::create_dir(PRIVILEGES).is_ok();
    let server = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", SSHD, "-D", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::null())
        .spawn()
        .context("starting sshd under setpriv")?;
    let ssh = Ssh { dir, servers: vec![server], made };
    tests::wait_for("sshd on loopback", tests::LIMIT, || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
    })?;
    Ok((ssh, port))
}

/// Keys, and what servers and clients are told.
fn write_configs(dir: &Path, port: u16) -> Result<()> {
    fs::create_dir_all(dir)?;
    for key in ["host", "client"] {
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join(key))
            .status()?;
        ensure!(status.success(), "ssh-keygen: {status}");
    }
    fs::copy(dir.join("client.pub"), dir.join("authorized"))?;
    let at = dir.display();
    let server = format!(
        "Port {port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nStrictModes no\n\
         UsePAM no\nPidFile none\nMaxStartups 2000\nMaxSessions 1000\nUseDNS no\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\nLogLevel ERROR\n\
         KexAlgorithms curve25519-sha256\nSubsystem sftp internal-sftp\n"
    );
    fs::write(dir.join("sshd_config"), server)?;
    let client = format!(
        "Host *\nPort {port}\nIdentityFile {at}/client\nIdentitiesOnly yes\nBatchMode yes\n\
         StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n\
         KexAlgorithms curve25519-sha256\nGSSAPIAuthentication no\nConnectTimeout 120\n"
    );
    fs::write(dir.join("config"), &client)?;
    let kept = format!("{client}ControlMaster auto\nControlPath {at}/%C\nControlPersist 120\n");
    fs::write(dir.join("config-kept"), kept)?;
    Ok(())
}

/// Where each machine sees its own folder.
pub(crate) fn own(lab: &Lab) -> PathBuf {
    lab.scratch().join("own")
}

/// The folder of a machine, as seen by everybody else.
pub(crate) fn folder(lab: &Lab, machine: &Machine) -> PathBuf {
    lab.scratch().join("machines").join(machine.address.to_string())
}

/// Runs a script at the root, with a limit. None: it took longer, and was ended.
pub(crate) fn script(
    lab: &Lab,
    script: &str,
    env: &[(&str, String)],
    limit: Duration,
) -> Result<Option<Duration>> {
    run(lab.root.command("bash"), &lab.scratch().join("script.log"), script, env, limit)
}

/// The same for a `bash` that is to be started in any place.
pub(crate) fn run(
    mut bash: Command,
    log: &Path,
    script: &str,
    env: &[(&str, String)],
    limit: Duration,
) -> Result<Option<Duration>> {
    use std::os::unix::process::CommandExt;
    let out = fs::File::create(log)?;
    // Its input ends with this process, and then so does all that it has started.
    let guarded = format!(
        "exec 9<&0 </dev/null; (read -r -u 9 _ || kill -KILL 0) & guard=$!; \
         trap \"kill $guard\" EXIT; {script}"
    );
    let mut child = bash
        .args(["-ec", &guarded])
        .envs(env.iter().map(|(name, value)| (name, value)))
        // Of the system's own Python, where the packages of the system are.
        .env("CLUSTERSHELL_GW_PYTHON_EXECUTABLE", "/usr/bin/python3")
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0)
        .spawn()
        .context("starting bash")?;
    let Some((took, status)) = limited(&mut child, limit)? else {
        let group = rustix::process::Pid::from_raw(child.id().cast_signed());
        let group = group.context("a process group")?;
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        child.wait()?;
        return Ok(None);
    };
    let said = fs::read_to_string(log).unwrap_or_default();
    ensure!(status.success(), "{script}\n{status}: {}", tail(&said));
    Ok(Some(took))
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(2000);
    text.get(from..).unwrap_or(text)
}
