//! Runs the user's own download tools.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

use super::pull::{PullStage, Watch};

/// The first of `candidates` (a program and its leading arguments) that is there and answers `--version`.
pub(super) fn first_there(candidates: &[&[&str]]) -> Option<Command> {
    candidates.iter().find_map(|words| {
        let (program, leading) = words.split_first()?;
        let command = || {
            let mut command = Command::new(program);
            command.args(leading);
            command
        };
        let answer = command()
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        answer.is_ok_and(|status| status.success()).then(command)
    })
}

/// What a download looks like from outside: a file or folder that grows to about `total` bytes.
pub(super) struct Growth<'a> {
    /// What to call it.
    pub(super) what: &'a str,
    pub(super) at: &'a Path,
    pub(super) total: u64,
}

/// Runs `command` to its end with `input` on its stdin, and tells of `growth`. What it says goes to a file in
/// `scratch`.
///
/// # Errors
/// [`Kind::Io`] with the last thing the tool said; what the watcher returns, and the tool is ended then.
pub(super) fn run(
    mut command: Command,
    input: &str,
    growth: &Growth<'_>,
    scratch: &Path,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| Error::new(Kind::Io, format!("{program} could not be run: {error}"));
    let said = scratch.join("said");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&said).map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that reads no input may be gone already; its exit status tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if let Err(stopped) = watch.tell(PullStage::Fetching, growth.what, size(growth.at), growth.total) {
            // It may have ended by itself meanwhile; either way it is gone.
            let _ended = child.kill().and_then(|()| child.wait());
            return Err(stopped);
        }
        thread::sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(());
    }
    Err(ended(&program, status, &fs::read(&said).map_err(failed)?))
}

/// Runs `command` to its end with `input` on its stdin, for what it says on stdout.
///
/// # Errors
/// [`Kind::Io`] with the last thing the tool said.
pub(super) fn ask(mut command: Command, input: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| Error::new(Kind::Io, format!("{program} could not be run: {error}"));
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // As in `run`.
        let _ = stdin.write_all(input.as_bytes());
    }
    let answer = child.wait_with_output().map_err(failed)?;
    if !answer.status.success() {
        return Err(ended(&program, answer.status, &answer.stderr));
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

fn ended(program: &str, status: ExitStatus, said: &[u8]) -> Error {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it did not say why");
    Error::new(Kind::Io, format!("{program} failed ({status}): {last}"))
}

/// Bytes of a file, or of all files in a folder; what vanishes meanwhile counts as nothing.
fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| size(&entry.path())).sum())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn who_watches_ends_a_tool() {
        let scratch = std::env::temp_dir().join(format!("pocketlm-tool-{}", std::process::id()));
        fs::create_dir_all(&scratch).unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let growth = Growth { what: "sleep", at: &scratch, total: 10 };
        let (begun, mut looks) = (Instant::now(), 0);
        let enough = |_| {
            looks += 1;
            if looks < 3 { Ok(()) } else { Err(Error::new(Kind::Cancelled, "enough")) }
        };
        let outcome = Watch::over(enough, |watch| {
            let outcome = run(sleep, "", &growth, &scratch, watch);
            assert!(watch.is_stopped());
            outcome
        });
        fs::remove_dir_all(&scratch).unwrap();
        assert_eq!(outcome.unwrap_err().kind(), Kind::Cancelled);
        assert!(begun.elapsed().as_secs() < 30, "it was waited for");
    }
}
