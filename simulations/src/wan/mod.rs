//! Emulated links ([`wan`]), and the real QUIC over them in virtual time.

pub mod flows;
mod memory;
pub mod rest;

pub use ::wan::*;
pub use memory::{MemoryLink, MemorySocket, Side};
