//! Responses that go on: lines of JSON or pieces of bytes, as a queue brings them.
//!
//! Queues are short, so that a slow reader slows down whoever feeds it and nothing piles up. What
//! is said, and when it ends, is up to the one with the other end of the queue.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_core::Stream;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::fault::Failure;

/// Lines that may wait for a slow reader.
const LINES: usize = 64;

/// A response of JSON lines, and the queue that feeds it.
pub(crate) fn line_stream<T: Serialize + Send + 'static>() -> (mpsc::Sender<T>, Response) {
    let (lines, mut queue) = mpsc::channel::<T>(LINES);
    let stream = Lines(move |context: &mut Context<'_>| {
        queue.poll_recv(context).map(|line| {
            let mut text = serde_json::to_vec(&line?).expect("plain lines are valid JSON");
            text.push(b'\n');
            Some(Ok::<_, Infallible>(Bytes::from(text)))
        })
    });
    let body = Body::from_stream(stream);
    (lines, ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// What a queue brings, as the stream of a response's bytes.
pub(crate) fn byte_stream<E>(
    mut queue: mpsc::Receiver<Result<Bytes, E>>,
) -> impl Stream<Item = Result<Bytes, E>> {
    Lines(move |context: &mut Context<'_>| queue.poll_recv(context))
}

/// A stream made of a function that is polled.
struct Lines<F>(F);

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for Lines<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(context)
    }
}

/// A stream that cannot go on: its reader has left, or the tables failed.
pub(crate) struct Gone;

impl<T> From<mpsc::error::SendError<T>> for Gone {
    fn from(_: mpsc::error::SendError<T>) -> Gone {
        Gone
    }
}

impl From<Failure> for Gone {
    fn from(_: Failure) -> Gone {
        Gone
    }
}
