//! Conversations that outgrow the context, made shorter by the app's own rule.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::text::Message;

type Rule = dyn FnMut(&[Message]) -> Result<Vec<Message>> + Send;

/// A rule that makes conversations shorter, shared by a session and its branches.
#[derive(Clone)]
pub(super) struct Condense(Arc<Mutex<Rule>>);

impl Condense {
    pub(super) fn new(rule: impl FnMut(&[Message]) -> Result<Vec<Message>> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(rule)))
    }

    pub(super) fn call(&self, messages: &[Message]) -> Result<Vec<Message>> {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))(messages)
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
