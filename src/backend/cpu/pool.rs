//! Threads that lend themselves to one closure at a time; the caller's thread works too.
//!
//! A token is hundreds of short calls, so helpers watch for the next call for some microseconds before they
//! sleep. A call waits only for helpers that took part: one that the system did not wake in time is not
//! waited for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Looks at the next call before a thread sleeps: some 20 µs.
const LOOKS: usize = 1000;

/// What a call computes; it is told which thread does: the caller's is 0.
type Job = &'static (dyn Fn(usize) + Sync);

/// The caller's thread and its helpers.
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    desk: Mutex<Desk>,
    /// A call was opened, or the pool ends.
    opened: Condvar,
    /// The last helper left the call.
    left: Condvar,
    /// The number of the last call and how many helpers are inside, written under the lock: for looking at
    /// without it.
    call: AtomicU32,
    inside: AtomicU32,
}

#[derive(Default)]
struct Desk {
    job: Option<Job>,
    panic: Option<Error>,
    ending: bool,
    /// Helpers asleep, and whether the caller is: nobody is woken by a system call for nothing.
    asleep: usize,
    caller_asleep: bool,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included.
    ///
    /// # Errors
    /// What the system says where it refuses a thread.
    pub(super) fn new(threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            desk: Mutex::default(),
            opened: Condvar::new(),
            left: Condvar::new(),
            call: AtomicU32::new(0),
            inside: AtomicU32::new(0),
        });
        let mut pool = Self { shared, helpers: Vec::new() };
        for index in 1..threads {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new().name(format!("pocketlm-cpu-{index}"));
            pool.helpers.push(thread.spawn(move || help(&shared, index))?);
        }
        Ok(pool)
    }

    /// How many threads compute.
    pub(super) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Hands each item of `work` to one thread; which one is chance, so a task's result must be its own.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] where a task panicked; the other items were still handed out.
    pub(super) fn each<T: Send>(
        &mut self,
        work: impl Iterator<Item = T> + Send,
        task: impl Fn(T) + Sync,
    ) -> Result<()> {
        self.each_with(work, || (), |(), item| task(item))
    }

    /// Like [`Self::each`], with scratch that each thread makes once.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] where a task panicked; the other items were still handed out.
    pub(super) fn each_with<T: Send, S>(
        &mut self,
        work: impl Iterator<Item = T> + Send,
        scratch: impl Fn() -> S + Sync,
        task: impl Fn(&mut S, T) + Sync,
    ) -> Result<()> {
        let alone = work.size_hint().1.is_some_and(|items| items <= 1);
        let work = Mutex::new(work);
        let next = || lock(&work).next();
        let job = |_| {
            let Some(first) = next() else { return };
            let mut scratch = scratch();
            task(&mut scratch, first);
            while let Some(item) = next() {
                task(&mut scratch, item);
            }
        };
        if alone || self.helpers.is_empty() {
            return own_part(&job);
        }
        self.run(&job)
    }

    /// Like [`Self::each`], of work that is shared out: the items of share `i` go to thread `i` from the first on, and from
    /// the last on to those that have none left of their own. So each stays on its way through memory, and none waits long.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] where a task panicked; the other items were still handed out.
    pub(super) fn each_share<T: Send>(
        &mut self,
        shares: Vec<impl DoubleEndedIterator<Item = T> + Send>,
        task: impl Fn(T) + Sync,
    ) -> Result<()> {
        let alone = shares.len() <= 1;
        let shares: Vec<_> = shares.into_iter().map(Mutex::new).collect();
        let first = |share: usize| lock(&shares[share]).next();
        let last = |share: usize| lock(&shares[share]).next_back();
        let job = |thread| {
            while let Some(item) = (thread < shares.len()).then(|| first(thread)).flatten() {
                task(item);
            }
            for share in 1..=shares.len() {
                let share = (thread + share) % shares.len();
                while let Some(item) = last(share) {
                    task(item);
                }
            }
        };
        if alone || self.helpers.is_empty() { own_part(&job) } else { self.run(&job) }
    }

    /// Runs `job` on this thread, and on each helper that comes in time.
    fn run(&mut self, job: &(dyn Fn(usize) + Sync)) -> Result<()> {
        // SAFETY: only the lifetime is changed. Helpers take the reference from the desk under its lock and
        // count themselves as inside; `close`, which runs however `job` ends, takes it off the desk and waits
        // until nobody is inside. So no helper has it when this function, and the borrow, end.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        self.shared.open(job);
        let own = own_part(job);
        own.and(self.shared.close().map_or(Ok(()), Err))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.desk).ending = true;
        self.shared.opened.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of its jobs; there is nothing else in it to fail.
            let _ = helper.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

impl Shared {
    fn open(&self, job: Job) {
        let mut desk = lock(&self.desk);
        desk.job = Some(job);
        self.call.fetch_add(1, Ordering::Release);
        if desk.asleep > 0 {
            self.opened.notify_all();
        }
    }

    fn close(&self) -> Option<Error> {
        lock(&self.desk).job = None;
        look_until(|| self.inside.load(Ordering::Acquire) == 0);
        let mut desk = lock(&self.desk);
        while self.inside.load(Ordering::Acquire) != 0 {
            desk.caller_asleep = true;
            desk = self.left.wait(desk).unwrap_or_else(PoisonError::into_inner);
            desk.caller_asleep = false;
        }
        desk.panic.take()
    }
}

/// What the caller's thread does of a job.
fn own_part(job: &(dyn Fn(usize) + Sync)) -> Result<()> {
    catch_unwind(AssertUnwindSafe(|| job(0))).map_err(|panic| panicked(&*panic))
}

/// The life of helper `index`.
fn help(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        look_until(|| shared.call.load(Ordering::Acquire) != seen);
        let mut desk = lock(&shared.desk);
        while !desk.ending && shared.call.load(Ordering::Acquire) == seen {
            desk.asleep += 1;
            desk = shared.opened.wait(desk).unwrap_or_else(PoisonError::into_inner);
            desk.asleep -= 1;
        }
        if desk.ending {
            return;
        }
        seen = shared.call.load(Ordering::Acquire);
        let Some(job) = desk.job else { continue };
        shared.inside.fetch_add(1, Ordering::AcqRel);
        drop(desk);

        let outcome = catch_unwind(AssertUnwindSafe(|| job(index)));

        let mut desk = lock(&shared.desk);
        if let Err(panic) = outcome {
            desk.panic.get_or_insert_with(|| panicked(&*panic));
        }
        if shared.inside.fetch_sub(1, Ordering::AcqRel) == 1 && desk.caller_asleep {
            shared.left.notify_one();
        }
    }
}

/// The error of a panic in a task.
pub(super) fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let what = panic.downcast_ref::<String>().map(String::as_str);
    let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for no given reason");
    Error::internal(format!("a computation panicked: {what}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_until(mut done: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if done() {
            return;
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn each_item_is_handed_out_once() {
        for threads in [1, 2, 3, 7] {
            let mut pool = Pool::new(threads).unwrap();
            for len in [0, 1, 2, 100, 1000] {
                let mut numbers = vec![0usize; len];
                let calls = AtomicUsize::new(0);
                let work = numbers.chunks_mut(3).enumerate();
                pool.each(work, |(index, chunk)| {
                    calls.fetch_add(1, Ordering::Relaxed);
                    chunk.iter_mut().zip(3 * index..).for_each(|(number, value)| *number += value);
                })
                .unwrap();
                assert_eq!(calls.into_inner(), len.div_ceil(3));
                assert!(numbers.iter().copied().eq(0..len), "{threads} threads");
            }
        }
    }

    #[test]
    fn each_item_of_a_share_is_handed_out_once() {
        for threads in [1, 2, 3, 7] {
            let mut pool = Pool::new(threads).unwrap();
            for (shares, len) in [(0, 0), (1, 100), (threads, 1), (threads, 100), (threads + 2, 1000)] {
                let mut numbers = vec![0usize; len];
                let mut work: Vec<_> = numbers.iter_mut().enumerate().collect();
                let share = len.div_ceil(shares.max(1)).max(1);
                let mut shared = Vec::new();
                while !work.is_empty() {
                    shared.push(work.drain(..share.min(work.len())).collect::<Vec<_>>().into_iter());
                }
                pool.each_share(shared, |(index, number)| *number += index).unwrap();
                assert!(numbers.iter().copied().eq(0..len), "{threads} threads, {shares} shares");
            }
        }
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        for bad in 0..40 {
            let done = AtomicUsize::new(0);
            let outcome = pool.each(0..40, |item| {
                assert_ne!(item, bad, "planted");
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert!(outcome.unwrap_err().to_string().contains("planted"));
            assert!(done.into_inner() <= 39);
        }
        pool.each(0..40, |_| ()).unwrap();
    }

    #[test]
    fn calls_after_a_sleep_are_served() {
        let mut pool = Pool::new(2).unwrap();
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let sum = AtomicUsize::new(0);
            pool.each(0..100, |item| _ = sum.fetch_add(item, Ordering::Relaxed)).unwrap();
            assert_eq!(sum.into_inner(), 4950);
        }
    }
}
