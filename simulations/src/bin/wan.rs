//! Emulated links by hand: one for datagrams without privileges, or a whole laboratory as root.
//!
//! It runs until its standard input ends or it is interrupted, and then prints what has crossed.
//! `wan udp` stands between a node and its parent; `wan lab` makes namespaces to start anything in.

use std::io::Read;
use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};
use simulations::lab::{Lab, Plan};
use simulations::wan::{Counters, Profile, Traffic, UdpLink};

/// Emulates wide-area links.
///
/// Profiles: lan, clean10, weak, veryweak, mid50, long50, geo, breaky, shallow.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    form: Form,
}

#[derive(Subcommand)]
enum Form {
    /// A link for datagrams: clients dial LISTEN instead of TARGET
    Udp {
        /// Where clients send
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where it goes
        #[arg(long, value_name = "ADDR")]
        target: SocketAddr,
        /// What the link is like
        #[arg(long, default_value = "weak")]
        profile: String,
        /// What its dice begin with
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Sites behind links, made of network namespaces; needs root
    Lab {
        /// How many sites
        #[arg(long, default_value_t = 3)]
        sites: usize,
        /// How many hosts each has, besides its gateway
        #[arg(long, default_value_t = 10)]
        hosts: usize,
        /// What the links are like
        #[arg(long, default_value = "weak")]
        profile: String,
        /// What their dice begin with
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> Result<()> {
    match Args::parse().form {
        Form::Udp { listen, target, profile, seed } => {
            let link = UdpLink::start(listen, target, &Profile::named(&profile)?, seed)?;
            println!("{} leads to {target} over a link like {profile:?}", link.address());
            wait()?;
            print("", &link.link().traffic());
        }
        Form::Lab { sites, hosts, profile, seed } => {
            let plan = Plan { sites, hosts, profile: Profile::named(&profile)?, seed };
            let lab = Lab::build(&plan)?;
            for machine in lab.machines() {
                println!("{:15} ip netns exec {}", machine.address, machine.namespace);
            }
            wait()?;
            for (no, site) in (1..).zip(&lab.sites) {
                print(&format!("site {no} "), &site.link().traffic());
            }
        }
    }
    Ok(())
}

/// Waits for the end of the input.
fn wait() -> Result<()> {
    let mut buffer = [0; 1024];
    while std::io::stdin().read(&mut buffer)? > 0 {}
    Ok(())
}

fn print(what: &str, traffic: &Traffic) {
    let one = |way: &str, c: &Counters| {
        println!(
            "{what}{way}: {} packets in, {} ({} bytes) out, {} lost, {} in the dark, {} dropped at \
             the queue, which held {} bytes at most",
            c.pushed.packets,
            c.delivered.packets,
            c.delivered.bytes,
            c.lost.packets,
            c.blacked_out.packets,
            c.overflowed.packets,
            c.queue_high,
        );
    };
    one("down", &traffic.down);
    one("up", &traffic.up);
}
