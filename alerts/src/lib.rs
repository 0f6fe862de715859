//! Telling people: the alerts of one node, and the channels by which they leave it.
//!
//! The controller has a [`Desk`], and so has each relay and host that has an `alerts.toml`, because
//! the one who notices must be able to tell by himself. Rules hand in what they see; the engine of
//! [`mesh::alerts`] decides what is told; each channel has a queue on disk and a task of its own,
//! so that one which hangs or fails is tried again and hurts nobody else.
//!
//! This crate knows nothing of links, orders or the tree: what is wrong is for its callers to say.

mod channel;
mod clock;
mod courier;
mod desk;
mod disk;
mod export;
mod figures;
mod info;
mod keep;
mod message;
mod outbox;
mod reactions;
mod rules;
mod settings;
mod syntax;

pub use channel::{SendError, plain};
pub use clock::Clock;
pub use desk::{AskError, Desk, OrderCheck, Setup, start};
pub use export::{Batch, Exported};
pub use info::{AlertInfo, ChannelInfo, NewAck, NewTest, Overview, Reacted, ReactionInfo};
pub use keep::{AlertRow, Change, FileKeeper, Keeper, Kept, SilenceRow};
pub use message::{Message, Sender, Told, Written, short};
pub use reactions::{Act, Wanted, next_wanted};
pub use rules::{Rule, Seen};
pub use settings::{Settings, SettingsError};
pub use syntax::{SyntaxError, line_of};
