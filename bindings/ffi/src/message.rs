//! What is said in a conversation.

use pocketlm::{Error, Result};
use serde_json::{Map, Value};

/// What somebody says in a conversation.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said.
    pub content: String,
    /// What else there is, a JSON object: the calls of an assistant, the call that a result is of, what only a template knows.
    #[uniffi(default = None)]
    pub more: Option<String>,
}

impl Message {
    pub(crate) fn meant(self) -> Result<pocketlm::Message> {
        let Self { role, content, more } = self;
        let mut message = pocketlm::Message::new(&role, &content);
        if let Some(more) = more {
            let more = serde_json::from_str::<Map<_, _>>(&more).map_err(|error| {
                Error::invalid(format!("what else a message has is no JSON object: {error}"))
            })?;
            message.0.extend(more);
        }
        Ok(message)
    }
}

impl From<&pocketlm::Message> for Message {
    fn from(message: &pocketlm::Message) -> Self {
        let mut more = message.0.clone();
        let mut text = |key: &str| match more.shift_remove(key) {
            Some(Value::String(text)) => text,
            Some(other) => {
                more.insert(key.to_owned(), other);
                String::new()
            }
            None => String::new(),
        };
        let (role, content) = (text("role"), text("content"));
        Self { role, content, more: (!more.is_empty()).then(|| Value::Object(more).to_string()) }
    }
}

/// Messages as the engine has them.
pub(crate) fn meant(messages: Vec<Message>) -> Result<Vec<pocketlm::Message>> {
    messages.into_iter().map(Message::meant).collect()
}

/// Messages as an app sees them.
pub(crate) fn told(messages: &[pocketlm::Message]) -> Vec<Message> {
    messages.iter().map(Message::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_message_is_lost() {
        for json in [
            r#"{"role":"user","content":"Hello"}"#,
            r#"{"role":"assistant","content":"","tool_calls":[{"id":"c0"}]}"#,
            r#"{"role":"user","content":[{"type":"text","text":"Hello"}]}"#,
        ] {
            let message = pocketlm::Message(serde_json::from_str(json).unwrap());
            let back = Message::from(&message).meant().unwrap();
            assert_eq!(Value::Object(back.0), Value::Object(message.0), "{json}");
        }
        let wrong = Message { role: "user".into(), content: "Hello".into(), more: Some("[".into()) };
        assert!(wrong.meant().is_err());
    }
}
