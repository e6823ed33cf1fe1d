//! What a line of a conversation asks of the program itself.

/// An order: its word, what may follow, and what it does.
pub(super) struct Known {
    pub(super) word: &'static str,
    what: &'static str,
    does: &'static str,
}

const fn known(word: &'static str, what: &'static str, does: &'static str) -> Known {
    Known { word, what, does }
}

/// Every order, as `/help` lists them.
pub(super) const KNOWN: &[Known] = &[
    known("/help", "", "this"),
    known(
        "/model",
        "[MODEL]",
        "goes on with another model; without one, says which it is and which are there",
    ),
    known("/system", "[TEXT|off]", "gives the model other instructions, or shows them"),
    known("/json", "[SCHEMA|off]", "answers in JSON: any object, or by a schema, as text or in a file"),
    known("/retry", "", "has the last question answered again"),
    known("/reset", "", "forgets the conversation, but for the instructions"),
    known("/save", "FILE", "keeps the conversation in a file"),
    known("/load", "FILE", "goes on with the conversation in a file"),
    known("/stats", "", "how long the last answer took, and how full the context is"),
    known("/quit", "", "ends; so does the end of the input"),
];

/// The same by other words.
const ALIASES: &[(&str, &str)] =
    &[("/?", "/help"), ("/clear", "/reset"), ("/exit", "/quit"), ("/bye", "/quit"), ("/again", "/retry")];

/// What a turn is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<'a> {
    /// An order's word as [`KNOWN`] has it, and what follows.
    Order(&'static str, &'a str),
    /// A word that looks like an order and is none.
    Unknown(&'a str),
    /// What is said to the model.
    Said(&'a str),
    Nothing,
}

impl<'a> Turn<'a> {
    /// A question may begin with a slash (a path, say), where more words follow and the first is no order.
    pub(super) fn of(text: &'a str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let meant = ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, meant)| meant);
        match KNOWN.iter().find(|known| known.word == meant) {
            _ if text.is_empty() => Self::Nothing,
            Some(known) => Self::Order(known.word, rest.trim()),
            None if word.starts_with('/') && rest.is_empty() => Self::Unknown(word),
            None => Self::Said(text),
        }
    }
}

/// What `/help` prints.
pub(super) fn help() -> String {
    let lines = KNOWN.iter().map(|known| {
        let Known { word, what, does } = known;
        format!("{:22} {does}\n", format!("{word} {what}"))
    });
    lines.collect::<String>()
        + "\"\"\" begins a text of several lines and ends it; a \\ at the end of a line goes on with the next, and so does\n\
           Alt-Enter. Ctrl-C stops an answer; twice between two answers it ends the program."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_told_from_questions() {
        assert_eq!(Turn::of("  "), Turn::Nothing);
        assert_eq!(Turn::of("/bye"), Turn::Order("/quit", ""));
        assert_eq!(Turn::of(" /save  my file.plm "), Turn::Order("/save", "my file.plm"));
        assert_eq!(Turn::of("/system Be\nbrief."), Turn::Order("/system", "Be\nbrief."));
        assert_eq!(Turn::of("/nonsense"), Turn::Unknown("/nonsense"));
        assert_eq!(Turn::of("/usr/bin holds what?"), Turn::Said("/usr/bin holds what?"));
        assert_eq!(Turn::of(" hello "), Turn::Said("hello"));
    }

    #[test]
    fn help_names_every_order() {
        assert!(KNOWN.iter().all(|known| help().contains(known.word)));
        assert!(ALIASES.iter().all(|(_, meant)| KNOWN.iter().any(|known| known.word == *meant)));
    }
}
