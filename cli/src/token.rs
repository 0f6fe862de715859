//! `barid token`: invitations, by which machines join the mesh.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::ValueEnum;
use controller::types::{NewToken, Status, TokenInfo};

use crate::client::{Client, segment};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::join::hostname;
use crate::render::table;
use crate::screen::Screen;
use crate::units::{parse_some_duration, show_duration, show_time, until};

/// Options of `barid token`.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

/// What `barid token` can do.
#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Make a token for one machine; it alone is printed on stdout
    Create(CreateArgs),
    /// List tokens, without their secrets
    List,
    /// Make a token worthless
    Revoke {
        /// The token's id, as `barid token list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Options of `barid token create`.
#[derive(Clone, Debug, clap::Args)]
struct CreateArgs {
    /// What the newcomer will be
    #[arg(long, value_enum)]
    role: Role,
    /// The newcomer's site
    #[arg(long, value_name = "SITE", default_value = "", hide_default_value = true)]
    site: String,
    /// The only name that may use it [default: any free name]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// How long it is good, at most a day
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_some_duration)]
    ttl: Duration,
}

/// What a machine can join as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Relay,
    Host,
}

/// Makes, lists and revokes tokens.
pub(crate) async fn main(
    args: Args,
    client: &Client,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    match args.verb {
        Verb::Create(args) => create(args, client, screen).await,
        Verb::List => list(client, screen).await,
        Verb::Revoke { id } => {
            client.delete(&format!("/v1/tokens/{}", segment(&id)?)).await?;
            match screen.json {
                true => screen.json(&serde_json::json!({ "revoked": id }))?,
                false => screen.say(&format!("token {id} is revoked"))?,
            }
            Ok(Exit::Ok)
        }
    }
}

async fn create(args: CreateArgs, client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let role = if args.role == Role::Relay { "relay" } else { "host" };
    let ttl_s = args.ttl.as_secs().max(1);
    let CreateArgs { site, name, .. } = args;
    let new = NewToken { role: role.into(), site, name, ttl_s };
    let info: TokenInfo = client.post("/v1/tokens", &new).await?;
    if screen.json {
        screen.json(&info)?;
        return Ok(Exit::Ok);
    }
    screen.print(&format!("{}\n", info.token.as_deref().unwrap_or_default()))?;
    let status: Status = client.get("/v1/status").await?;
    // To the next second, or an hour would be shown as 59 m 59 s.
    let ttl = until(info.expires_ms).as_secs_f64().ceil();
    let ttl = show_duration(Duration::from_secs_f64(ttl));
    screen
        .say(&format!("token {} for one {role}, good for {ttl}; on the new machine:", info.id))?;
    screen.help(&join_line(role, &info.name, &dialled(&status.listen)))?;
    Ok(Exit::Ok)
}

/// What to type on the new machine. The token itself is asked for, so that it is in no history.
fn join_line(role: &str, name: &str, parent: &str) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" --name {name}") };
    let listen = if role == "relay" { " --listen 0.0.0.0:7400" } else { "" };
    format!(
        "barid join --state /var/lib/barid --parent {parent}{name}{listen} --token -  \
         (then paste the token, and Ctrl-D; a relay's address is as good a parent)"
    )
}

/// An address to dial for an address that is listened on.
fn dialled(listen: &str) -> String {
    let name = || hostname().unwrap_or_else(|| "CONTROLLER".into());
    match listen.parse::<SocketAddr>() {
        Ok(addr) if is_any(addr.ip()) => format!("{}:{}", name(), addr.port()),
        _ => listen.to_owned(),
    }
}

fn is_any(ip: IpAddr) -> bool {
    ip.is_unspecified()
}

async fn list(client: &Client, screen: &mut Screen) -> Result<Exit, Failure> {
    let tokens: Vec<TokenInfo> = client.get("/v1/tokens").await?;
    if screen.json {
        screen.json(&tokens)?;
        return Ok(Exit::Ok);
    }
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let row = |token: &TokenInfo| {
        let stands = match &token.used_by {
            Some(host) => format!("used by {host}"),
            None if until(token.expires_ms).is_zero() => "expired".into(),
            None => "good".into(),
        };
        let (role, expires) = (token.role.clone(), show_time(token.expires_ms));
        vec![token.id.clone(), role, dash(&token.site), dash(&token.name), expires, stands]
    };
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    screen.print(&table(&["ID", "ROLE", "SITE", "NAME", "EXPIRES", "STANDS"], &rows))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_join_line_can_be_typed() {
        assert_eq!(dialled("10.0.0.1:7400"), "10.0.0.1:7400");
        let any = dialled("0.0.0.0:7401");
        assert!(any.ends_with(":7401") && !any.starts_with("0.0"), "{any}");
        let line = join_line("relay", "r1", "ctl:7400");
        assert!(line.contains("--parent ctl:7400 --name r1 --listen"), "{line}");
        assert!(!join_line("host", "", "c:1").contains("--listen"));
    }
}
