//! Running the program and judging its end.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program with a cache of its own and nothing of this user's settings.
pub(crate) fn pocketlm(cache: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pocketlm"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("POCKETLM_") || name.starts_with("HF_")) {
            command.env_remove(name);
        }
    }
    command.env("POCKETLM_CACHE", cache).env("HF_HOME", cache.join("hugging-face"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command that finds no other program: no pip, no curl.
pub(crate) fn offline(mut command: Command) -> End {
    End::of(&command.env("PATH", "").output().expect("the program starts"))
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl End {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Asserts a failure: the code, one line on stderr that says all of `due`, nothing on stdout.
    pub(crate) fn fails(&self, code: i32, due: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with("note: ")).collect();
        assert!(errors.len() == 1 && errors[0].starts_with("error: "), "{self:?}");
        for words in due {
            assert!(errors[0].contains(words), "{words:?} is not in {self:?}");
        }
    }

    /// Asserts an end without a word on stderr, for what stands on stdout.
    pub(crate) fn fine(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout.trim_end()
    }
}
