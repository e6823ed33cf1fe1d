//! `chat` on a terminal: what is typed, what is drawn. The terminal is one of util-linux's `script`.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::data::{Scratch, real_model};
use crate::program::pocketlm;

/// How long anything may take, a slow machine included.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program that believes that it is on a terminal.
struct Terminal {
    child: Child,
    shown: Receiver<Vec<u8>>,
    /// All that was drawn so far, and how much of it was looked at.
    screen: String,
    seen: usize,
}

impl Terminal {
    fn open(scratch: &Scratch, kind: &str, words: &[&str]) -> Self {
        let inner = pocketlm(scratch, words);
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("UTF-8"));
        let words: Vec<String> =
            [inner.get_program()].into_iter().chain(inner.get_args()).map(quoted).collect();
        let mut script = Command::new("script");
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            script.env_remove(name);
        }
        // A shell that stays would die of the Ctrl-C that the program survives.
        let command = format!("exec {}", words.join(" "));
        script.env("TERM", kind).env("POCKETLM_HISTORY", scratch.join("history")).env("CI", "true");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
        let mut child =
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux's script starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        let (show, shown) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                if show.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, shown, screen: String::new(), seen: 0 }
    }

    /// Waits until `text` is drawn behind what was looked at before; all that was drawn up to it.
    fn until(&mut self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                let end = self.seen + at + text.len();
                let drawn = self.screen[self.seen..end].to_owned();
                self.seen = end;
                return drawn;
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.shown.recv_timeout(left) {
                Ok(bytes) => self.screen += &String::from_utf8_lossy(&bytes),
                Err(error) => panic!("{text:?} is not drawn ({error}): {:?}", &self.screen[self.seen..]),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().expect("a pipe").write_all(keys.as_bytes()).expect("a terminal reads");
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().expect("an end").code()
    }
}

#[test]
fn a_conversation_is_held_on_a_terminal() {
    let scratch = Scratch::new();
    let model = real_model().display().to_string();
    let saved = scratch.join("talk.plm");
    let words = ["chat", "-m", &model, "--device", "cpu", "--temp", "0", "-n", "24"];
    let mut terminal = Terminal::open(&scratch, "xterm-256color", &words);
    terminal.until("/help lists the commands");
    terminal.until("> ");
    terminal.press("What is the capital of France?\r");
    let answer = terminal.until(" tok/s, the first after ");
    assert!(answer.contains("Paris"), "{answer:?}");
    terminal.until("> ");

    // Two lines are one question; what was said before is known.
    terminal.press("What country\x1b\ris it in?\r");
    let answer = terminal.until(" tok/s, the first after ");
    assert!(answer.rsplit("is it in?").next().is_some_and(|answer| answer.contains("France")), "{answer:?}");
    terminal.until("> ");

    for (typed, due) in [
        ("/system Answer in one word.", "note: instructed"),
        ("/system", "Answer in one word."),
        (
            "/json {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}",
            "note: answers are JSON by the schema",
        ),
        ("/retry", " tok/s"),
        ("/json off", "note: answers are free"),
        ("/stats", "tokens of the context are used"),
        ("/save nowhere/at/all", "error: "),
        (&format!("/save {}", saved.display()), "note: saved in "),
        ("/reset", "note: the conversation begins anew"),
        (&format!("/load {}", saved.display()), "5 messages"),
        ("/model", "smollm2-135m-instruct"),
        ("/model no-such-model", "error: "),
        ("/nonsense", "note: /nonsense is no command"),
    ] {
        terminal.press(&format!("{typed}\r"));
        // The line is drawn as it is typed.
        terminal.until("\n");
        terminal.until(due);
        terminal.until("> ");
    }

    // The keys of the history; Ctrl-C ends what is typed, and the second time the conversation.
    terminal.press("\x1b[A");
    terminal.until("/nonsense");
    terminal.press("\x03");
    terminal.until("note: Ctrl-C again");
    terminal.until("> ");
    terminal.press("\x03");
    assert_eq!(terminal.code(), Some(0));
    let history = std::fs::read_to_string(scratch.join("history")).expect("a history");
    assert!(history.contains("What is the capital of France?"), "{history:?}");
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_conversation() {
    let scratch = Scratch::new();
    let model = real_model().display().to_string();
    let words = ["chat", "-m", &model, "--device", "cpu", "--temp", "0", "--system", "You are a poet."];
    let mut terminal = Terminal::open(&scratch, "xterm-256color", &words);
    terminal.until("> ");
    terminal.press("Write a very long poem about the sea.\r");
    terminal.until("sea.");
    terminal.until("\n");
    terminal.until("\n");
    terminal.press("\x03");
    terminal.until(" tok/s");
    terminal.until("> ");
    terminal.press("/quit\r");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn markdown_is_drawn_where_the_terminal_can() {
    let scratch = Scratch::new();
    let model = real_model().display().to_string();
    let common = ["chat", "-m", &model, "--device", "cpu", "--temp", "0", "-n", "40"];
    let constrained = [&common[..], &["--regex", r"\*\*x\*\*", "Say x"]].concat();
    let mut exact = Terminal::open(&scratch, "xterm", &constrained);
    exact.until("**x**");
    assert_eq!(exact.code(), Some(0), "what a constraint makes is shown as it is");

    // The model answers with a block of code.
    let words = [&common[..], &["Write a Python function that adds two numbers."]].concat();
    let mut styled = Terminal::open(&scratch, "xterm", &words);
    let mut dumb = Terminal::open(&scratch, "dumb", &words);
    let (styled_text, dumb_text) = (styled.until("def add"), dumb.until("def add"));
    assert!(dumb_text.contains("```python\r\n") && !dumb_text.contains("\x1b["), "{dumb_text:?}");
    assert!(styled_text.contains("\x1b[36m") && !styled_text.contains("```"), "{styled_text:?}");
    assert_eq!((styled.code(), dumb.code()), (Some(0), Some(0)));
}

#[test]
fn a_dumb_terminal_is_enough() {
    let scratch = Scratch::new();
    let model = real_model().display().to_string();
    let words = ["chat", "-m", &model, "--device", "cpu", "--temp", "0", "-n", "24"];
    let mut terminal = Terminal::open(&scratch, "dumb", &words);
    terminal.until("> ");
    terminal.press("\"\"\"\nWhat is the capital\nof France?\n\"\"\"\n");
    let answer = terminal.until(" tok/s");
    assert!(answer.contains("Paris"), "{answer:?}");
    terminal.press("/bye\n");
    assert_eq!(terminal.code(), Some(0));
}
