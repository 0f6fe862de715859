//! The bus for programs: publish, subscribe, ask and answer through the socket of the node on the
//! same machine.
//!
//! ```no_run
//! # async fn example() -> Result<(), bus::BusError> {
//! let bus = bus::Client::new("/run/barid/bus.sock");
//! let mut news = bus.subscribe(&["app.*.state"]).await?;
//! bus.publish("app.web.state", "up".into()).await?;
//! while let Some(line) = news.next().await? {
//!     println!("{line:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! This crate knows the socket and nothing behind it: who may say what is the node's to judge, and
//! where messages go is the mesh's.

mod client;
pub mod files;
mod kept;
mod wire;

pub use client::{Answers, BusError, Client, FileAnswers, Messages};
pub use kept::Holder;
pub use wire::{
    AllKept, Answer, AnswerLine, End, Fault, Heard, Kept, Line, Message, Place, Reader, Taken, Why,
    decode_data, encode_data,
};
