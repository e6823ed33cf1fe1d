//! Answers that stream: server-sent events, as the WHATWG has them, in the words of a [`Script`].

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use hyper::body::Frame;
use serde_json::Value;
use tokio::time::{Instant, Sleep, sleep};

use super::answering::Answering;
use super::body::typed;
use super::slots::News;

/// How an endpoint tells what happens.
pub(crate) trait Script: Send + Unpin + 'static {
    /// Writes what `news` is to the client.
    fn tell(&mut self, news: News, out: &mut String);
}

/// What of a stream is handed on at a time, about.
const PIECE: usize = 16 << 10;
/// After a silence of so long a comment is sent, so that nobody between takes the stream for dead.
const SILENCE: Duration = Duration::from_secs(15);
/// Tells proxies not to wait for more.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A response that streams what is said of a job that has begun.
pub(crate) fn stream(answering: Answering, mut script: impl Script) -> Response {
    let mut begun = String::new();
    script.tell(News::Begun, &mut begun);
    let silence = Box::pin(sleep(SILENCE));
    let events = Events { answering, script, begun, silence };
    let mut response = typed("text/event-stream", String::new()).map(|_| Body::new(events));
    response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
    response.headers_mut().insert(BUFFERING, HeaderValue::from_static("no"));
    response
}

struct Events<S> {
    answering: Answering,
    script: S,
    /// What was said before anybody listened.
    begun: String,
    silence: Pin<Box<Sleep>>,
}

impl<S: Script> HttpBody for Events<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let own = &mut *self;
        let mut out = std::mem::take(&mut own.begun);
        // What is there already goes out at once.
        while out.len() < PIECE {
            match own.answering.poll_next(context) {
                Poll::Ready(Some(news)) => own.script.tell(news, &mut out),
                Poll::Ready(None) if out.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) => break,
                Poll::Pending if out.is_empty() && own.silence.as_mut().poll(context).is_ready() => {
                    out.push_str(": still at it\n\n");
                }
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        own.silence.as_mut().reset(Instant::now() + SILENCE);
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }
}

/// An event without a name.
pub(crate) fn data(out: &mut String, value: &Value) {
    // Writing to a string does not fail; JSON has no line breaks of its own.
    let _ = write!(out, "data: {value}\n\n");
}

/// An event with a name.
pub(crate) fn event(out: &mut String, name: &str, value: &Value) {
    let _ = write!(out, "event: {name}\ndata: {value}\n\n");
}

/// What ends a stream of events without names.
pub(crate) fn done(out: &mut String) {
    out.push_str("data: [DONE]\n\n");
}
