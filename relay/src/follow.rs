//! Followers: a packet behind the last one, so that its loss is noticed sooner.
//!
//! QUIC takes a packet for lost when a later one was acknowledged. Behind a single small order on a
//! quiet link there is no later one: the sender waits for a probe time-out, and quinn 0.11 probes
//! with a PING, not with the data, so that the order arrives after two and a half round trips at
//! best. An empty datagram a moment later is that later packet: a lost order is sent again after
//! 9/8 of a round trip. It costs some 60 bytes for each order that nothing else follows.

use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;

/// How long something else may take to follow.
pub const FOLLOW: Duration = Duration::from_millis(10);
/// On shorter paths a probe costs nothing that anybody notices.
const SHORT: Duration = Duration::from_millis(20);

/// Sends a follower, if the path is long. Older peers do not take datagrams and get none.
pub fn follow(conn: &Connection) {
    if conn.rtt() > SHORT {
        conn.send_datagram(Bytes::new()).ok();
    }
}
