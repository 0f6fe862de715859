//! `barid join`: makes this machine a relay or host, once.
//!
//! The settings are written before the credentials: whoever finds credentials finds a node that
//! can start.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use certs::{Credentials, Token};
use relay::{JoinError, Settings};
use serde_json::json;

use crate::exit::Exit;
use crate::fail::Failure;
use crate::screen::Screen;

/// Where relays listen unless something else is said.
pub(crate) const RELAY_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7400);

/// Options of `barid join`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The node's private folder; made if need be
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The controller or a relay, as HOST:PORT; several in order of preference
    #[arg(long = "parent", value_name = "ADDR", required = true, value_parser = parse_parent)]
    parents: Vec<String>,
    /// The token, or - to read it from stdin, where nobody can see it
    #[arg(long, value_name = "TOKEN", env = "BARID_TOKEN", hide_env_values = true)]
    token: String,
    /// The name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where a relay listens for its children (UDP) [default: 0.0.0.0:7400]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The folder below which pushes install [default: /]
    #[arg(long, value_name = "DIR")]
    install_root: Option<PathBuf>,
}

/// Enrols, and says as whom.
pub(crate) fn main(args: Args, verbose: u8, screen: &mut Screen) -> Result<Exit, Failure> {
    crate::logs::init("warn", verbose)?;
    let Args { state, parents, token, name, listen, install_root } = args;
    if let Some(known) = load(&state)? {
        let message = format!("{} is enrolled already: {}", state.display(), known.identity());
        return Err(Failure::new(Exit::Failed, "already-enrolled", message)
            .with_help("use another --state, or delete this one to give that identity up"));
    }
    let mut settings = settings(&state)?;
    settings.parents = parents;
    settings.listen = listen.or(settings.listen);
    settings.install_root = install_root.unwrap_or(settings.install_root);
    let credentials = enrol(&state, &mut settings, &token, name.as_deref())?;
    let identity = credentials.identity();
    if screen.json {
        let certs::Identity { mesh, id, role, name, site } = identity;
        let (mesh, role) = (mesh.to_string(), role.to_string());
        screen
            .json(&json!({ "mesh": mesh, "id": id, "role": role, "name": name, "site": site }))?;
        return Ok(Exit::Ok);
    }
    screen.print(&format!("{identity} in mesh {}\n", identity.mesh))?;
    screen.say(&format!("enrolled; start it: barid node --state {}", state.display()))?;
    Ok(Exit::Ok)
}

/// Asks the parents for a place in the mesh, and writes settings and credentials.
pub(crate) fn enrol(
    state: &Path,
    settings: &mut Settings,
    token: &str,
    name: Option<&str>,
) -> Result<Credentials, Failure> {
    let token = read_token(token)?;
    let name = match name {
        Some(name) => name.to_owned(),
        None => hostname().ok_or_else(|| {
            Failure::usage("this machine has no host name", "name the node: --name NAME")
        })?,
    };
    if settings.parents.is_empty() {
        return Err(Failure::usage("nobody to ask is named", "add --parent HOST:PORT"));
    }
    certs::files::private_dir(state).map_err(|error| Failure::local(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::local(&error))?;
    let key = certs::NodeKey::for_joining(state).map_err(|error| Failure::local(&error))?;
    let credentials = runtime.block_on(ask(&settings.parents, &token, &name, &key))?;
    if credentials.identity().role.serves() {
        settings.listen.get_or_insert(RELAY_LISTEN);
    }
    settings.save(&state.join("node.toml")).map_err(|error| Failure::local(&error))?;
    credentials.save(state).map_err(|error| Failure::local(&error))?;
    certs::NodeKey::joined(state);
    Ok(credentials)
}

/// The credentials in a node's folder, if it is enrolled.
pub(crate) fn load(state: &Path) -> Result<Option<Credentials>, Failure> {
    Credentials::load(state).map_err(|error| Failure::local(&error))
}

/// The settings in a node's folder, or the defaults.
pub(crate) fn settings(state: &Path) -> Result<Settings, Failure> {
    Settings::load(&state.join("node.toml")).map_err(|error| {
        let failure = Failure::local(&error);
        Failure { exit: Exit::Usage, ..failure }
    })
}

/// This machine's name.
pub(crate) fn hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.trim().to_owned();
    (!name.is_empty() && name != "(none)").then_some(name)
}

/// Reads `HOST:PORT`.
pub(crate) fn parse_parent(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(1..) => Ok(text.to_owned()),
        _ => Err("write HOST:PORT, for example relay1:7400 or [fd00::1]:7400".into()),
    }
}

fn read_token(given: &str) -> Result<Token, Failure> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        let read = std::io::stdin().take(4_096).read_to_string(&mut text);
        read.map_err(|error| Failure::local(&error))?;
    }
    text.parse().map_err(|error: certs::TokenError| {
        Failure::usage(format!("the token is not one: {error}"), "copy it again, the whole line")
    })
}

/// Asks one parent after the other. Only where nobody answers is the next one asked.
async fn ask(
    parents: &[String],
    token: &Token,
    name: &str,
    key: &certs::NodeKey,
) -> Result<Credentials, Failure> {
    let mut silent = Vec::new();
    for parent in parents {
        match relay::join(parent, token, name, key).await {
            Ok(credentials) => return Ok(credentials),
            Err(error) if error.may_pass() => {
                let text = relay::chain(&error);
                // Some of these name the parent themselves.
                let named = text.starts_with(parent.as_str());
                silent.push(if named { text } else { format!("{parent}: {text}") });
            }
            Err(error @ JoinError::Refused(_)) => {
                return Err(Failure::new(Exit::Denied, "refused", relay::chain(&error))
                    .with_help("`barid token create` at the controller makes a new token"));
            }
            Err(error) => return Err(Failure::local(&error)),
        }
    }
    Err(Failure::new(Exit::Unreachable, "unreachable", silent.join("; ")).with_help(
        "does the address end in the UDP port of a controller or relay, and is it open?",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_have_a_port() {
        for good in ["a:1", "relay.example:7400", "10.0.0.1:7400", "[fd00::1]:7400"] {
            assert_eq!(parse_parent(good).as_deref(), Ok(good));
        }
        for wrong in ["", "a", "a:", ":7400", "a:0", "a:70000", "a:b"] {
            assert!(parse_parent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_token_is_a_usage_error_and_is_not_repeated() {
        let failure = read_token("sesame").expect_err("no token");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(!failure.text().contains("sesame"), "{}", failure.text());
    }

    #[test]
    fn there_is_a_host_name() {
        assert!(hostname().is_some());
    }
}
