//! Conversations that outgrow the context, made shorter by the app's own rule.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::text::Message;

type Rule = dyn FnMut(&[Message]) -> Result<Vec<Message>> + Send;

/// How long a session waits while the rule is asked for another in another thread: long enough for one that only reckons.
const PATIENCE: Duration = Duration::from_millis(250);

/// A rule that makes conversations shorter, shared by a session and its branches.
#[derive(Clone)]
pub(super) struct Condense(Arc<Shared>);

struct Shared {
    place: Mutex<Place>,
    back: Condvar,
}

struct Place {
    /// Not here while it is asked.
    rule: Option<Box<Rule>>,
    /// By whom.
    asker: Option<ThreadId>,
}

impl Condense {
    pub(super) fn new(rule: impl FnMut(&[Message]) -> Result<Vec<Message>> + Send + 'static) -> Self {
        let place = Place { rule: Some(Box::new(rule)), asker: None };
        Self(Arc::new(Shared { place: Mutex::new(place), back: Condvar::new() }))
    }

    /// Asks the rule. Whoever it may be waiting for must not wait for it: it may say something in a branch that has
    /// outgrown the context too, in its own thread or in another.
    pub(super) fn call(&self, messages: &[Message]) -> Result<Vec<Message>> {
        let mut asked = Asked { shared: &self.0, rule: Some(self.take()?) };
        match &mut asked.rule {
            Some(rule) => rule(messages),
            None => Err(Error::internal("a rule for long conversations is lost")),
        }
    }

    fn take(&self) -> Result<Box<Rule>> {
        let mut place = self.0.lock();
        let me = thread::current().id();
        if place.asker.is_some_and(|asker| asker != me) {
            let waited = self.0.back.wait_timeout_while(place, PATIENCE, |place| place.asker.is_some());
            place = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match place.rule.take() {
            Some(rule) => {
                place.asker = Some(me);
                Ok(rule)
            }
            None => {
                let what =
                    "the session's rule for long conversations is being asked for a session that shares it";
                Err(Error::new(Kind::SessionBusy, what)
                    .hint("wait until it has answered, or give one of the two a rule of its own"))
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a rule back however asking it ends.
struct Asked<'a> {
    shared: &'a Shared,
    rule: Option<Box<Rule>>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.shared.lock() = Place { rule: self.rule.take(), asker: None };
        self.shared.back.notify_one();
    }
}

impl fmt::Debug for Condense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condense")
    }
}

/// The conversation without its oldest exchange: all from the first message of the user to before the second one. Instructions
/// before it stay, and so does what the user said last. For [`super::Session::condense_with`].
///
/// # Errors
/// None: where there is no exchange to leave out, all of it comes back.
pub fn forget_oldest(messages: &[Message]) -> Result<Vec<Message>> {
    let is_user = |message: &&Message| message.0.get("role").is_some_and(|role| role == "user");
    let mut questions = (0..messages.len()).filter(|&at| is_user(&&messages[at]));
    let (Some(first), Some(second)) = (questions.next(), questions.next()) else {
        return Ok(messages.to_vec());
    };
    Ok([&messages[..first], &messages[second..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_asked_while_it_is_asked_says_so() {
        // In its own thread, and in one that it waits for.
        for is_own in [true, false] {
            let shared: Arc<Mutex<Option<Condense>>> = Arc::default();
            let inner = shared.clone();
            let condense = Condense::new(move |messages| {
                let Some(branch) = inner.lock().unwrap().clone() else { return Ok(messages.to_vec()) };
                let ask = move || branch.call(&[]);
                if is_own { ask() } else { thread::spawn(ask).join().unwrap() }
            });
            *shared.lock().unwrap() = Some(condense.clone());
            assert_eq!(condense.call(&[]).unwrap_err().kind(), Kind::SessionBusy);
            // It is there again.
            *shared.lock().unwrap() = None;
            condense.call(&[]).unwrap();
        }
    }

    #[test]
    fn a_rule_is_waited_for_and_outlives_a_panic() {
        let condense = Condense::new(|messages| {
            assert!(messages.is_empty(), "planted");
            thread::sleep(Duration::from_millis(1));
            Ok(Vec::new())
        });
        thread::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| condense.call(&[]))).collect();
            assert!(asked.into_iter().all(|asked| asked.join().unwrap().is_ok()));
            let panicked = scope.spawn(|| condense.call(&[Message::new("user", "?")]).is_ok());
            assert!(panicked.join().is_err());
        });
        condense.call(&[]).unwrap();
    }

    #[test]
    fn the_oldest_exchange_goes_and_the_last_question_stays() {
        let say = |role: &str, text: &str| Message::new(role, text);
        let all = [
            say("system", "s"),
            say("user", "1"),
            say("assistant", "a"),
            say("tool", "t"),
            say("user", "2"),
            say("assistant", "b"),
            say("user", "3"),
        ];
        let once = forget_oldest(&all).unwrap();
        assert_eq!(once, [&all[..1], &all[4..]].concat());
        let twice = forget_oldest(&once).unwrap();
        assert_eq!(twice, [&all[..1], &all[6..]].concat());
        assert_eq!(forget_oldest(&twice).unwrap(), twice);
    }
}
