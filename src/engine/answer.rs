//! Tokens to text, with stop strings held back until they are ruled out.

use crate::text;

/// The text of an answer as it grows.
#[derive(Debug)]
pub(super) struct Answer {
    decoder: Option<text::Decoder>,
    stops: Vec<String>,
    /// Text that may yet turn out to begin a stop string.
    held: String,
    /// All that was handed out.
    text: String,
}

/// What a token added.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Added {
    /// Text that no stop string can take back.
    pub(super) text: String,
    /// Whether a stop string is complete.
    pub(super) stopped: bool,
}

impl Answer {
    pub(super) fn new(decoder: Option<text::Decoder>, stops: Vec<String>) -> Self {
        Self { decoder, stops, held: String::new(), text: String::new() }
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
            self.text += &held;
            added.text += &held;
        }
        added
    }

    /// All text so far.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn add(&mut self, text: &str) -> Added {
        self.held += text;
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let keep = found.unwrap_or_else(|| self.held.len() - self.longest_beginning());
        let handed: String = self.held.drain(..keep).collect();
        if found.is_some() {
            self.held.clear();
        }
        self.text += &handed;
        Added { text: handed, stopped: found.is_some() }
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
        let mut handed = String::new();
        for piece in pieces {
            let added = answer.add(piece);
            handed += &added.text;
            assert!(stops.iter().all(|stop| !handed.contains(stop)));
            if added.stopped {
                return (handed, true);
            }
        }
        handed += &answer.finish().text;
        assert_eq!(handed, answer.into_text());
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
