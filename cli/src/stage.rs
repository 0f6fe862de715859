//! `barid push --stage` with waves: the content first, and once it is at every host it is put in
//! place in waves.
//!
//! Two orders, one after the other, given from here: whoever leaves in between has a stage, which
//! can be started by hand.

use controller::types::NewStart;

use crate::client::{Client, segment};
use crate::exit::Exit;
use crate::fail::Failure;
use crate::push::{Args, Order, follow, waves};
use crate::screen::Screen;
use crate::units::millis;

/// What is to be started when it is staged.
pub(crate) struct After {
    new: NewStart,
    quiet: bool,
    /// How it is said by hand.
    said: String,
}

impl After {
    /// What the options say, if they say that anything follows.
    pub(crate) fn of(args: &Args) -> Result<Option<After>, Failure> {
        let is_wanted = args.waves.is_some() || args.gate.is_some() || args.all_at_once;
        if !args.stage || !is_wanted {
            return Ok(None);
        }
        if args.detach {
            let message = "what is staged is started here once it is at every host: with --async \
                           nobody waits for that";
            return Err(Failure::usage(message, "leave --async out, or start it with --start"));
        }
        let option = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!(" --{name} '{value}'")).unwrap_or_default()
        };
        let at_once = if args.all_at_once { " --all-at-once" } else { "" };
        let said = [&option("waves", &args.waves), &option("gate", &args.gate), at_once].concat();
        let new = NewStart {
            targets: None,
            reach_ms: millis(args.reach),
            hold_ms: millis(args.hold),
            waves: waves(args.waves.clone(), args.gate.clone()),
            all_at_once: args.all_at_once,
            begins: String::new(),
            max_link_bytes: args.max_bytes_per_link,
        };
        Ok(Some(After { new, quiet: args.quiet, said }))
    }

    /// Starts it if it is at every host, or says how that can be done all the same.
    pub(crate) async fn start(
        self,
        staged: Exit,
        id: &str,
        (client, screen): (&Client, &mut Screen),
    ) -> Result<Exit, Failure> {
        if staged != Exit::Ok {
            screen.say("not started: the content is not at every host")?;
            let said = self.said;
            screen.help(&format!("`barid push --start {id}{said}` starts it all the same"))?;
            return Ok(staged);
        }
        let path = format!("/v1/pushes/{}/start", segment(id)?);
        let how = Order { path: &path, quiet: self.quiet, detach: false, usual: false };
        follow(client, screen, &how, &self.new).await
    }
}
