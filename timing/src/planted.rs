//! A bug planted on purpose, so that the simulator can prove that it would find it.
//!
//! Only the feature `sabotage` compiles them in; without it nothing is ever planted.

/// The bug that is planted, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// Which.
    #[cfg(feature = "sabotage")]
    pub bug: Option<mesh::sabotage::Bug>,
}

/// Whether this bug is planted.
macro_rules! has {
    ($planted:expr, $bug:ident) => {{
        #[cfg(feature = "sabotage")]
        let has = $planted.bug == Some(mesh::sabotage::Bug::$bug);
        #[cfg(not(feature = "sabotage"))]
        let has = $planted != $planted;
        has
    }};
}

pub(crate) use has;
