//! What the command line says: results on stdout, everything else on stderr.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pocketlm::Error;

use crate::failure::Failure;

/// Writes one line of result to stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}").map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderLeft,
        _ => Error::from(error).at("standard output").into(),
    })
}

/// Writes the one JSON object of a command with `--json`.
pub(crate) fn json(object: &serde_json::Value) -> Result<(), Failure> {
    line(&object.to_string())
}

/// Tells the user something beside the result: a choice made, a source that failed.
pub(crate) fn note(text: &str) {
    say("note", text);
}

/// Says why the command fails, on one line whatever `text` holds.
pub(crate) fn error(text: &str) {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    say("error", &lines.join(" "));
}

fn say(label: &str, text: &str) {
    // Where stderr is closed there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{label}: {text}");
}

/// A bar over `total` bytes on stderr, drawn only where that is a terminal.
pub(crate) fn progress(what: &str, total: u64) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what.to_owned());
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
