//! What the command line says: results on stdout, everything else on stderr.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::time::Duration;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pocketlm::Error;
use serde::Serialize;

use crate::failure::ReaderLeft;

/// Writes one line of result to stdout.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(refused)
}

/// Writes a piece of a line to stdout at once.
pub(crate) fn piece(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(refused)
}

/// Writes the one JSON object of a command with `--json`.
pub(crate) fn json(object: &impl Serialize) -> anyhow::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut stdout, object).map_err(io::Error::from).map_err(refused)?;
    stdout.write_all(b"\n").and_then(|()| stdout.flush()).map_err(refused)
}

fn refused(error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => ReaderLeft.into(),
        _ => Error::from(error).at("standard output").into(),
    }
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

/// Tells a terminal what stands between two turns, without a label and out of the way.
pub(crate) fn aside(text: &str) {
    let stderr = io::stderr();
    let choice = if obeys_styles(&stderr) { ColorChoice::Always } else { ColorChoice::Never };
    let mut stderr = AutoStream::new(stderr, choice);
    let faint = anstyle::Style::new().dimmed();
    let _ = writeln!(stderr, "{faint}{text}{faint:#}");
}

/// Whether what reads a stream obeys styles. Unlike `anstream`, a dumb terminal stays dumb where `CI` is set.
pub(crate) fn obeys_styles(stream: &impl RawStream) -> bool {
    let is_able = anstyle_query::term_supports_color() || anstyle_query::clicolor_force();
    is_able && AutoStream::choice(stream) != ColorChoice::Never
}

fn say(label: &str, text: &str) {
    // Where stderr is closed there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{label}: {text}");
}

/// A bar over the parts of a load, drawn only where stderr is a terminal.
pub(crate) fn load_bar() -> ProgressBar {
    bar(1000, "{msg} {bar:30} {percent}%")
}

/// A bar over `total` bytes on stderr, drawn only where that is a terminal.
pub(crate) fn progress(what: &str, total: u64) -> ProgressBar {
    bar(total, "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}").with_message(what.to_owned())
}

fn bar(total: u64, template: &str) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
