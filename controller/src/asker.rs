//! Who asks: whoever gives an order is named in it and in the list of orders.
//!
//! The kernel says as which user the other end of the socket runs. That is root nearly always, so
//! the command line adds who has become root (`SUDO_USER`), and whoever reads the name sees which
//! of the two is which: `ada (root)` is what somebody said who is root.
//!
//! Not here: what somebody may do. Whoever can open the socket may do everything.

use std::convert::Infallible;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use nix::unistd::{Uid, User};
use tokio::net::UnixListener;

use crate::api::Api;
use crate::orders::blocking;

/// The header in which the command line says who has become the user that it runs as.
pub const USER_HEADER: &str = "barid-user";

/// The longest name that is believed; a longer one is none.
const LONGEST: usize = 64;

/// As which user the other end of a connection runs; none if the kernel does not know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Peer {
        Peer(stream.io().peer_cred().ok().map(|peer| peer.uid()))
    }
}

/// The API on behalf of whoever asks: the orders that it gives name him.
pub(crate) struct Asked(pub(crate) Api);

impl FromRequestParts<Api> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Asked, Infallible> {
        let said = parts.headers.get(USER_HEADER).and_then(|said| said.to_str().ok());
        let said = said.filter(|said| is_name(said)).map(str::to_owned);
        let uid = parts.extensions.get::<ConnectInfo<Peer>>().and_then(|peer| peer.0.0);
        // It may ask a directory service.
        let user = blocking(move || Ok(uid.map(user))).await.ok().flatten();
        Ok(Asked(api.on_behalf_of(&name(user, said))))
    }
}

impl Api {
    /// The same API; the orders that it gives name this one.
    pub(crate) fn on_behalf_of(&self, by: &str) -> Api {
        let (desk, distributor) = (self.desk.on_behalf_of(by), self.distributor.on_behalf_of(by));
        Api { desk, distributor, rollouts: self.rollouts.on_behalf_of(by), ..self.clone() }
    }
}

/// The name of a user, or his number if there is none.
fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

/// Whom to name, by what the kernel knows and by what is said.
fn name(user: Option<String>, said: Option<String>) -> String {
    match (user, said) {
        (Some(user), Some(said)) if said != user => format!("{said} ({user})"),
        (Some(user), _) => user,
        (None, Some(said)) => format!("{said} (unknown)"),
        (None, None) => "unknown".into(),
    }
}

/// Whether it can be the name of a user, also of one from a directory service.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-@+$\\".contains(c);
    (1..=LONGEST).contains(&text.len()) && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_told_from_what_is_known() {
        let name = |user: &str, said: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            name(some(user), some(said))
        };
        assert_eq!(name("root", "ada"), "ada (root)");
        assert_eq!(name("ada", "ada"), "ada");
        assert_eq!(name("root", ""), "root");
        assert_eq!(name("", "ada"), "ada (unknown)");
        assert_eq!(name("", ""), "unknown");
    }

    #[test]
    fn a_name_has_no_room_for_anything_else() {
        for good in ["ada", "ada.l", "EXAMPLE\\ada", "ada@example.org", "svc-push$"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "ada (root)", "a\u{1b}[31m", "ada lovelace", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_user_without_a_name_is_a_number() {
        assert_eq!(user(0), "root");
        assert_eq!(user(4_000_000_001), "uid 4000000001");
    }
}
