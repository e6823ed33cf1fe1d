//! What an answer looks like: Markdown on a terminal, and the very text everywhere else.

mod head;
mod markdown;
mod page;
mod table;

use std::io::{self, IsTerminal};

use crate::output;

use markdown::Markdown;

/// Where an answer appears as it comes.
pub(crate) enum Screen {
    /// A terminal that knows styles.
    Styled(Box<Markdown>),
    /// One that does not, or a text that is no Markdown.
    Plain,
    /// A pipe or a file.
    Exact,
}

impl Screen {
    /// What stdout is. `NO_COLOR` and `TERM=dumb` mean plain text, `CLICOLOR_FORCE=1` styles in a pipe too.
    pub(crate) fn new(is_markdown: bool) -> Self {
        let stdout = io::stdout();
        // Where Windows cannot be told to obey styles, there is nothing to say about it.
        let _ = anstyle_query::windows::enable_ansi_colors();
        let is_styled = output::obeys_styles(&stdout);
        match (stdout.is_terminal(), is_styled && is_markdown) {
            (true, true) => Self::Styled(Box::new(Markdown::new(width()))),
            (false, true) => Self::Styled(Box::new(Markdown::new(None))),
            (true, false) => Self::Plain,
            (false, false) => Self::Exact,
        }
    }

    /// Shows more of the answer.
    pub(crate) fn show(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Styled(markdown) => output::piece(&markdown.push(text)),
            Self::Plain => output::piece(&harmless(text)),
            Self::Exact => output::piece(text),
        }
    }

    /// Ends the answer and its line.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Styled(markdown) => output::piece(&(markdown.finish() + "\n")),
            Self::Plain | Self::Exact => output::piece("\n"),
        }
    }
}

/// The cells of a line, but for the last, which some terminals break behind.
fn width() -> Option<usize> {
    let (terminal_size::Width(width), _) = terminal_size::terminal_size()?;
    Some(usize::from(width).saturating_sub(1)).filter(|&width| width >= 20)
}

/// Text without the control characters that a terminal obeys.
fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_terminal_is_given_no_orders_either() {
        assert_eq!(harmless("a\n\tb\x1b[2J\r"), "a\n\tb\u{fffd}[2J\u{fffd}");
    }
}
