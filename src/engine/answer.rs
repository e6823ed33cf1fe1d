//! Tokens to text, with stop strings held back until they are ruled out.

use crate::text::{self, News, Reader, ToolCall};

use super::event::Event;

/// The text of an answer as it grows.
#[derive(Debug)]
pub(super) struct Answer {
    decoder: Option<text::Decoder>,
    stops: Vec<String>,
    /// Text that may yet turn out to begin a stop string.
    held: String,
    /// All that was handed out, calls of tools included.
    text: String,
    /// Reads calls of tools, where there are any.
    reader: Option<Reader>,
    /// All that was handed out beside the calls.
    said: String,
    calls: Vec<ToolCall>,
}

/// What a token added.
#[derive(Debug)]
pub(super) struct Added {
    /// Text that no stop string can take back, and calls.
    pub(super) events: Vec<Event>,
    /// Whether a stop string is complete.
    pub(super) stopped: bool,
}

impl Answer {
    pub(super) fn new(decoder: Option<text::Decoder>, stops: Vec<String>) -> Self {
        let (held, text, said) = (String::new(), String::new(), String::new());
        Self { decoder, stops, held, text, reader: None, said, calls: Vec::new() }
    }

    /// With a reader of calls.
    pub(super) fn reading(self, reader: Option<Reader>) -> Self {
        Self { reader, ..self }
    }

    /// Whether a text can end it.
    pub(super) fn has_stops(&self) -> bool {
        !self.stops.is_empty()
    }

    /// Adds a token.
    pub(super) fn push(&mut self, token: u32) -> Added {
        let text = self.decoder.as_mut().map_or_else(String::new, |decoder| decoder.push(token));
        self.add(&text)
    }

    /// No token follows: what is still held back.
    pub(super) fn finish(&mut self) -> Added {
        let rest = self.decoder.as_mut().map_or_else(String::new, text::Decoder::finish);
        let mut added = self.add(&rest);
        if !added.stopped {
            let held = std::mem::take(&mut self.held);
            let events = self.tell(held);
            added.events.extend(events);
        }
        let news = self.reader.as_mut().map(Reader::finish).unwrap_or_default();
        added.events.extend(self.events(news));
        added
    }

    /// All text so far, as the model wrote it; without the calls; and the calls.
    pub(super) fn into_parts(self) -> (String, String, Vec<ToolCall>) {
        (self.text, self.said, self.calls)
    }

    fn add(&mut self, text: &str) -> Added {
        self.held += text;
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let keep = found.unwrap_or_else(|| self.held.len() - self.longest_beginning());
        let handed: String = self.held.drain(..keep).collect();
        if found.is_some() {
            self.held.clear();
        }
        Added { events: self.tell(handed), stopped: found.is_some() }
    }

    /// Text that stands.
    fn tell(&mut self, text: String) -> Vec<Event> {
        self.text += &text;
        let news = match &mut self.reader {
            Some(reader) => reader.push(&text),
            None if text.is_empty() => Vec::new(),
            None => vec![News::Text(text)],
        };
        self.events(news)
    }

    fn events(&mut self, news: Vec<News>) -> Vec<Event> {
        let event = |news| match news {
            News::Text(text) => {
                self.said += &text;
                Event::Text(text)
            }
            News::Arguments { id, name, text } => Event::ToolArguments { id, name, text },
            News::Call(call) => {
                self.calls.push(call.clone());
                Event::ToolCall(call)
            }
        };
        news.into_iter().map(event).collect()
    }

    /// Bytes at the end of `held` that begin a stop string.
    fn longest_beginning(&self) -> usize {
        let beginning = |stop: &String| {
            let ends = stop.char_indices().map(|(at, _)| at).skip(1);
            ends.filter(|&end| self.held.ends_with(&stop[..end])).max().unwrap_or(0)
        };
        self.stops.iter().map(beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut answer = Answer::new(None, stops.iter().map(ToString::to_string).collect());
        let text = |added: &Added| -> String {
            added
                .events
                .iter()
                .map(|event| if let Event::Text(text) = event { text.as_str() } else { "" })
                .collect()
        };
        let mut handed = String::new();
        for piece in pieces {
            let added = answer.add(piece);
            handed += &text(&added);
            assert!(stops.iter().all(|stop| !handed.contains(stop)));
            if added.stopped {
                return (handed, true);
            }
        }
        handed += &text(&answer.finish());
        assert_eq!(handed, answer.into_parts().0);
        (handed, false)
    }

    #[test]
    fn a_stop_string_never_leaks() {
        assert_eq!(feed(&["END"], &["one E", "N", "D two"]), ("one ".into(), true));
        assert_eq!(feed(&["END"], &["one E", "N", "E", "ND"]), ("one EN".into(), true));
        assert_eq!(feed(&["END"], &["one EN"]), ("one EN".into(), false));
        assert_eq!(feed(&["b", "abc"], &["xab"]), ("xa".into(), true));
        assert_eq!(feed(&["é!"], &["caf", "é", "?"]), ("café?".into(), false));
        assert_eq!(feed(&[], &["a", "b"]), ("ab".into(), false));
    }
}
