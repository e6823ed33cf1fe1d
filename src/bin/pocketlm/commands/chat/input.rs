//! Where the turns of a conversation come from: an editor of lines on a terminal, else the lines of standard input.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal, Lines, StdinLock};
use std::path::PathBuf;
use std::{env, fs};

use etcetera::BaseStrategy;
use pocketlm::{Error, Kind, Result};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Cmd, Config, Context, Editor, EventHandler, Helper, KeyCode, KeyEvent, Modifiers};

use super::orders::KNOWN;
use crate::output;

/// Turns, one after the other.
pub(super) enum Input {
    Terminal(Box<Typed>),
    Lines(Lines<StdinLock<'static>>),
}

/// What is typed.
pub(super) struct Typed {
    editor: Editor<Words, FileHistory>,
    /// Where what was typed is kept for the next time.
    history: Option<PathBuf>,
}

/// Lines that the history keeps.
const KEPT: usize = 1000;

impl Input {
    /// Standard input; an editor where it is a terminal, and what is said is seen on one.
    pub(super) fn open() -> Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Lines(io::stdin().lock().lines()));
        }
        let config =
            Config::builder().max_history_size(KEPT).and_then(|config| config.history_ignore_dups(true));
        let config = config.map_err(refused)?.auto_add_history(false).build();
        let mut editor = Editor::with_config(config).map_err(refused)?;
        editor.set_helper(Some(Words));
        for key in [KeyEvent(KeyCode::Enter, Modifiers::ALT), KeyEvent(KeyCode::Char('J'), Modifiers::CTRL)] {
            editor.bind_sequence(key, EventHandler::Simple(Cmd::Newline));
        }
        let history = history_file();
        if let Some(path) = history.as_ref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            log::warn!("what was typed before is not known: {error} ({})", path.display());
        }
        Ok(Self::Terminal(Box::new(Typed { editor, history })))
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next turn, without what only held its lines together; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<String>> {
        let text = match self {
            Self::Terminal(typed) => typed.next()?,
            Self::Lines(lines) => of_lines(lines)?,
        };
        Ok(text.map(|text| joined(&text)))
    }
}

impl Typed {
    fn next(&mut self) -> Result<Option<String>> {
        let mut is_second = false;
        loop {
            match self.editor.readline("> ") {
                Ok(text) => {
                    self.keep(&text);
                    return Ok(Some(text));
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Interrupted) if is_second => return Ok(None),
                Err(ReadlineError::Interrupted) => {
                    output::note("Ctrl-C again, or Ctrl-D, ends the conversation");
                    is_second = true;
                }
                Err(error) => return Err(refused(error)),
            }
        }
    }

    /// The history is a convenience: where it cannot be kept, the conversation goes on.
    fn keep(&mut self, text: &str) {
        let kept = self.editor.add_history_entry(text).and_then(|is_new| match &self.history {
            Some(path) if is_new => self.editor.append_history(path),
            _ => Ok(()),
        });
        if let Err(error) = kept {
            log::warn!("what is typed is not kept: {error}");
            self.history = None;
        }
    }
}

/// `POCKETLM_HISTORY`, which may be empty for none, or a file where the system keeps the state of programs.
fn history_file() -> Option<PathBuf> {
    let path = match env::var_os("POCKETLM_HISTORY") {
        Some(path) if path.is_empty() => return None,
        Some(path) => PathBuf::from(path),
        None => {
            let homes = etcetera::choose_base_strategy().ok()?;
            homes.state_dir().unwrap_or_else(|| homes.data_dir()).join("pocketlm/history")
        }
    };
    if let Some(folder) = path.parent()
        && let Err(error) = fs::create_dir_all(folder)
    {
        log::warn!("what is typed is not kept: {error} ({})", folder.display());
        return None;
    }
    Some(path)
}

fn refused(error: ReadlineError) -> Error {
    Error::new(Kind::Io, error.to_string()).at("the terminal")
}

/// The lines of a turn.
fn of_lines(lines: &mut impl Iterator<Item = io::Result<String>>) -> Result<Option<String>> {
    let mut text: Option<String> = None;
    while text.as_deref().is_none_or(is_open) {
        let Some(line) = lines.next() else { break };
        let line = line.map_err(|error| Error::new(Kind::Io, error.to_string()).at("standard input"))?;
        text = Some(text.map_or_else(|| line.clone(), |text| format!("{text}\n{line}")));
    }
    Ok(text)
}

const MARK: &str = "\"\"\"";

/// Whether more lines belong to a text.
fn is_open(text: &str) -> bool {
    match text.trim_start().strip_prefix(MARK) {
        Some(block) => !block.trim_end().ends_with(MARK),
        None => text.ends_with('\\'),
    }
}

/// A text without what held its lines together.
fn joined(text: &str) -> String {
    match text.trim_start().strip_prefix(MARK) {
        Some(block) => {
            let block = block.trim_end();
            block.strip_suffix(MARK).unwrap_or(block).trim_matches('\n').to_owned()
        }
        None => text.strip_suffix('\\').unwrap_or(text).replace("\\\n", "\n"),
    }
}

/// What the editor knows of a conversation.
struct Words;

impl Helper for Words {}
impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        prompt.into()
    }
}

impl Validator for Words {
    fn validate(&self, typed: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_open(typed.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..at];
        let orders = KNOWN.iter().filter(|known| begun.starts_with('/') && known.word.starts_with(begun));
        Ok((0, orders.map(|known| known.word.to_owned()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(text: &str) -> Vec<String> {
        let mut lines = text.lines().map(|line| Ok(line.to_owned()));
        let mut turns = Vec::new();
        while let Some(turn) = of_lines(&mut lines).unwrap() {
            turns.push(joined(&turn));
        }
        turns
    }

    #[test]
    fn a_turn_may_have_several_lines() {
        assert_eq!(turns("one\ntwo"), ["one", "two"]);
        assert_eq!(turns("one \\\ntwo\nthree"), ["one \ntwo", "three"]);
        assert_eq!(turns("\"\"\"\none\n\n two\n\"\"\"\nthree"), ["one\n\n two", "three"]);
        assert_eq!(turns("\"\"\"one\"\"\"\ntwo"), ["one", "two"]);
        assert_eq!(turns("\"\"\"never\nended"), ["never\nended"]);
        assert_eq!(turns("ends\\"), ["ends"]);
    }
}
