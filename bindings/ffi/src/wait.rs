//! Work in a thread of its own, awaited from any executor.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::error::{Result, internal};

/// Values on their way from a thread to whoever waits for them.
#[derive(Debug)]
pub(crate) struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    values: VecDeque<T>,
    is_closed: bool,
    wakers: Vec<Waker>,
}

impl<T> Channel<T> {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { values: VecDeque::new(), is_closed: false, wakers: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Adds a value: `join` may put it into the last one that nobody has taken yet.
    pub(crate) fn push(&self, value: T, join: impl FnOnce(&mut T, T) -> Option<T>) {
        let mut state = self.state();
        let left = match state.values.back_mut() {
            Some(last) => join(last, value),
            None => Some(value),
        };
        state.values.extend(left);
        self.tell(state);
    }

    /// Nothing follows.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        self.tell(state);
    }

    /// The next value; `None` after the last.
    pub(crate) async fn next(&self) -> Option<T> {
        poll_fn(|context| {
            let mut state = self.state();
            match state.values.pop_front() {
                Some(value) => Poll::Ready(Some(value)),
                None if state.is_closed => Poll::Ready(None),
                None => {
                    if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                        state.wakers.push(context.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// As [`Self::next`], holding the thread.
    pub(crate) fn wait(&self) -> Option<T> {
        let waits = |state: &mut State<T>| state.values.is_empty() && !state.is_closed;
        let state = self.changed.wait_while(self.state(), waits);
        state.unwrap_or_else(PoisonError::into_inner).values.pop_front()
    }

    /// Wakes whoever waits, with the lock let go: a waker may run the app's code.
    fn tell(&self, mut state: MutexGuard<'_, State<T>>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` in a thread of its own, then closes `channel`. A panic in it is told as `fail` says.
pub(crate) fn pump<T: Send + 'static>(
    channel: Arc<Channel<T>>,
    work: impl FnOnce(&Channel<T>) + Send + 'static,
    fail: impl FnOnce() -> T + Send + 'static,
) -> Result<()> {
    let work = move || {
        if catch_unwind(AssertUnwindSafe(|| work(&channel))).is_err() {
            channel.push(fail(), |_, value| Some(value));
        }
        channel.close();
    };
    let thread = std::thread::Builder::new().name("pocketlm".into()).spawn(work);
    thread.map(drop).map_err(|error| internal(&format!("the system gives no thread: {error}")))
}

/// The result of `work`, done in a thread of its own.
pub(crate) async fn off<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let channel = Channel::new();
    let put = |channel: &Channel<Result<T>>| channel.push(work(), |_, value| Some(value));
    pump(channel.clone(), put, || Err(internal("a panic; please report it")))?;
    channel.next().await.unwrap_or_else(|| Err(internal("a thread ended without its result")))
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::error::PocketlmError;

    /// Awaits `future` as an executor does that parks its thread.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        struct Unpark(thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut future = std::pin::pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => return value,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn values_come_in_order_and_then_none() {
        let channel = Channel::new();
        let work = |channel: &Channel<u32>| {
            for value in 0..100 {
                channel.push(value, |_, value| Some(value));
                thread::sleep(Duration::from_micros(u64::from(value % 7) * 50));
            }
        };
        pump(channel.clone(), work, || 0).unwrap();
        for value in (0..100).step_by(2) {
            assert_eq!(block_on(channel.next()), Some(value));
            assert_eq!(channel.wait(), Some(value + 1));
        }
        assert_eq!((block_on(channel.next()), channel.wait()), (None, None));
    }

    #[test]
    fn a_panic_is_an_error() {
        let told = block_on(off::<()>(|| panic!("planted")));
        assert!(matches!(told, Err(PocketlmError::Internal(_))), "{told:?}");
        assert_eq!(block_on(off(|| Ok(7))).unwrap(), 7);
    }
}
