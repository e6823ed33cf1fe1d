//! How a failure reaches the user: one line on stderr and an exit code, whatever happened.

use std::fmt;
use std::panic::{self, AssertUnwindSafe, Location};

use clap::error::ErrorKind;
use pocketlm::{Error, Kind};

use crate::output;

/// The reader of stdout went away (`pocketlm … | head`): nothing is wrong and nobody listens.
#[derive(Debug)]
pub(crate) struct ReaderLeft;

impl fmt::Display for ReaderLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of standard output left")
    }
}

impl std::error::Error for ReaderLeft {}

/// Runs a command to its exit code; tells `say` why it failed.
pub(crate) fn guard(command: impl FnOnce() -> anyhow::Result<()>, say: fn(&str)) -> u8 {
    // A panic has been reported by the hook of `quiet_panics`, and nothing of the command is used after it.
    match panic::catch_unwind(AssertUnwindSafe(command)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) if error.is::<ReaderLeft>() => 0,
        Ok(Err(error)) => {
            say(&error.to_string());
            kind(&error).map_or(1, exit_code)
        }
        Err(_) => 1,
    }
}

/// The family of a failure that the engine knows.
pub(crate) fn kind(error: &anyhow::Error) -> Option<Kind> {
    error.downcast_ref::<Error>().map(Error::kind)
}

/// The exit code of each family of failures.
pub(crate) fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::InvalidArgument | Kind::ContextOverflow => 2,
        Kind::NotFound | Kind::BadFile | Kind::Unsupported | Kind::Template => 3,
        Kind::DeviceUnavailable | Kind::DeviceLost | Kind::WrongNumbers => 4,
        Kind::OutOfMemory => 5,
        Kind::Cancelled => 130,
        _ => 1,
    }
}

/// Prints what clap has to say (help and version on stdout, a wrong call as one line on stderr).
pub(crate) fn usage(error: &clap::Error) -> u8 {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if !is_help {
        output::error(&usage_line(&error.to_string()));
        return 2;
    }
    // A closed stdout is the reader's choice.
    let _ = error.print();
    if error.use_stderr() { 2 } else { 0 }
}

/// One line of clap's several: the message and its tips, without the usage block.
fn usage_line(rendered: &str) -> String {
    let message: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = message.join(" ").replace(" tip: ", "; ");
    format!("{}; --help shows the usage", line.trim_start_matches("error: "))
}

/// Turns a panic into one line that says what to report, without a backtrace.
pub(crate) fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        output::error(&panic_line(message, info.location()));
    }));
}

fn panic_line(message: &str, location: Option<&Location<'_>>) -> String {
    let message: Vec<&str> = message.split_whitespace().collect();
    let place = location.map_or_else(String::new, |place| format!(" ({}:{})", place.file(), place.line()));
    format!("internal: {}{place}; this is a bug in pocketlm, please report it", message.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_code() {
        let code = |error: anyhow::Error| guard(|| Err(error), |_| ());
        let engine = |kind: Kind| code(Error::new(kind, "planted").into());
        assert_eq!(guard(|| Ok(()), |_| ()), 0);
        assert_eq!(code(ReaderLeft.into()), 0);
        assert_eq!(engine(Kind::Io), 1);
        assert_eq!(engine(Kind::InvalidArgument), 2);
        assert_eq!(engine(Kind::BadFile), 3);
        assert_eq!(engine(Kind::DeviceLost), 4);
        assert_eq!(engine(Kind::Cancelled), 130);
        assert_eq!(guard(|| panic!("planted"), |_| ()), 1);
    }

    #[test]
    fn a_panic_is_one_line() {
        let line = panic_line("left\n  right", Some(Location::caller()));
        assert!(line.starts_with("internal: left right ("), "{line}");
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_wrong_call_is_one_line() {
        let rendered = "error: unexpected argument '--jsn' found\n\n  tip: a similar argument exists: '--json'\n\n\
                        Usage: pocketlm models --json\n\nFor more information, try '--help'.\n";
        assert_eq!(
            usage_line(rendered),
            "unexpected argument '--jsn' found; a similar argument exists: '--json'; --help shows the usage"
        );
    }
}
