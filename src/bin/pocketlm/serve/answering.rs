//! A request's way through the server, seen from its client: it waits, it hears what its slot says, and when it is dropped, be
//! it because the client left, what is computed for it stops.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pocketlm::{Event, Finish, FinishReason};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::Server;
use super::guard::Client;
use super::refusal::Refusal;
use super::slots::{Job, News, Stop, Work};

/// Pieces of an answer that wait for a reader at most. A slot whose reader is slower waits for it, until the connection is given up.
const UNREAD: usize = 1024;

/// What a slot says of a job.
#[derive(Debug)]
pub(crate) struct Answering {
    server: Arc<Server>,
    news: mpsc::Receiver<News>,
    stop: Arc<Stop>,
    deadline: Pin<Box<Sleep>>,
    has_ended: bool,
}

impl Answering {
    /// Lines up.
    pub(crate) fn queue(server: &Arc<Server>, client: Client, work: Work) -> Self {
        let (sender, news) = mpsc::channel(UNREAD);
        let stop = Arc::new(Stop::default());
        let deadline = Box::pin(tokio::time::sleep(server.limits.answer));
        server.slots.queue(client, Job { work, news: sender, stop: stop.clone() });
        Self { server: server.clone(), news, stop, deadline, has_ended: false }
    }

    /// Waits until it is under way.
    pub(crate) async fn begun(&mut self) -> Result<(), Refusal> {
        match self.next().await {
            Some(News::Begun) => Ok(()),
            Some(News::Failed(refusal)) => Err(refusal),
            _ => Err(Refusal::internal("An answer did not begin.")),
        }
    }

    pub(crate) async fn next(&mut self) -> Option<News> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// What comes next; nothing after [`News::Failed`] or [`News::Done`], one of which always comes.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<News>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let news = match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => News::Failed(Refusal::overdue(self.server.limits.answer.as_secs())),
            Poll::Pending => match ready!(self.news.poll_recv(context)) {
                // It is dropped only with the server, or by a bug.
                None => News::Failed(Refusal::internal("The answer was lost.")),
                Some(News::Event(_, Event::Finished(Finish { reason: FinishReason::Cancelled, .. }))) => {
                    News::Failed(Refusal::shutting_down())
                }
                Some(news) => news,
            },
        };
        self.has_ended = matches!(news, News::Failed(_) | News::Done);
        Poll::Ready(Some(news))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.stop();
        self.server.slots.leave(&self.stop);
    }
}
