//! `GET /v1/orders/{id}/output/{host}`: the rest of an output that its answer has only the
//! beginning of, from the spool of the host, as bytes.
//!
//! Nothing of it is kept here: it passes through as it comes. What breaks off ends the answer
//! before its announced length, and whoever asks goes on from there with `offset`.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mesh::Stream;
use protos::{Envelope, OUTPUT_KIND, OutputBody, OutputFault, OutputRequest};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::clock::to_ms;
use crate::fault::Failure;
use crate::lines::byte_stream;
use crate::orders::{Desk, blocking};
use crate::past::find;

/// How long a wish is good; hosts' clocks may differ by about as much.
const GOOD: Duration = Duration::from_secs(3600);
/// Pieces that wait for a slow reader, of 64 KiB at most.
const PIECES: usize = 4;

/// What is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[serde(default)]
    stream: Which,
    /// How many bytes the asker has.
    #[serde(default)]
    offset: u64,
}

/// Which of the two streams.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Which {
    #[default]
    Stdout,
    Stderr,
}

/// The bytes from the offset on, with their number as the length of the answer.
pub(crate) async fn output(
    State(api): State<Api>,
    Path((id, name)): Path<(String, String)>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(wanted) =
        wanted.map_err(|error| Failure::bad(error.body_text(), "see docs/api.md"))?;
    let hosts = api.live.state().hosts.clone();
    let host = hosts.iter().find(|(_, row)| row.name == name).map(|(id, _)| *id);
    let host = host.ok_or_else(|| {
        Failure::unknown("unknown-host", format!("there is no host {name}"), "barid hosts")
    })?;
    let tables = api.tables.clone();
    let (order, row) = blocking(move || find(&tables, &id)).await?;
    if row.kind != "run" || !row.targets().contains(host) {
        let message = format!("{name} has run nothing for this {}", row.kind);
        return Err(Failure::unknown("no-output", message, "barid runs show ID"));
    }
    let stream = match wanted.stream {
        Which::Stdout => Stream::Stdout,
        Which::Stderr => Stream::Stderr,
    };
    let envelope = api.desk.wish(OutputBody {
        mesh: api.desk.authority.mesh().0,
        order,
        host,
        stream,
        not_after_ms: to_ms(SystemTime::now() + GOOD),
        metrics: false,
    });
    let request = OutputRequest { envelope, offset: wanted.offset, files: Vec::new() };
    let mut coming =
        api.desk.node.output(host, &request).await.map_err(|not| failure(&name, &not))?;
    let left = coming.size.saturating_sub(wanted.offset);
    let (pieces, waiting) = mpsc::channel::<Result<Bytes, std::io::Error>>(PIECES);
    tokio::spawn(async move {
        loop {
            let piece = match coming.next().await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => return,
                Err(not) => Err(std::io::Error::other(not)),
            };
            let ends = piece.is_err();
            if pieces.send(piece).await.is_err() || ends {
                return;
            }
        }
    });
    let head = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, left.to_string()),
    ];
    Ok((head, Body::from_stream(byte_stream(waiting))).into_response())
}

impl Desk {
    /// A wish, signed.
    pub(crate) fn wish(&self, body: OutputBody) -> Bytes {
        let (bytes, signer) = (body.encode(), self.authority.order_signer());
        let envelope = Envelope {
            kind: OUTPUT_KIND.into(),
            signature: signer.sign(OUTPUT_KIND, &bytes),
            key: signer.key().id().into_bytes().into(),
            body: bytes.into(),
        };
        envelope.encode()
    }
}

fn failure(host: &str, not: &relay::NotComing) -> Failure {
    let message = format!("{host}: {not}");
    match not.fault {
        OutputFault::Gone => Failure::unknown(
            "output-gone",
            message,
            "the beginning is in `barid runs show`; run it again with the output into a file",
        ),
        OutputFault::Refused => Failure::conflict(message, "barid hosts"),
        OutputFault::Away | OutputFault::Broken => Failure::away(message),
    }
}
