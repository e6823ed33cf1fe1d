//! A real window, with keys pressed in it: under Xvfb, with xdotool and ImageMagick's `import` (`apps/desktop/test window`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use pocketlm_desktop::conversation::{Conversation, End};

use crate::data::{Scratch, real_model};

const DISPLAY: &str = ":77";

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn start(program: &str, words: &[&str]) -> Running {
    let mut command = Command::new(program);
    command.args(words).env("DISPLAY", DISPLAY).env_remove("WAYLAND_DISPLAY").stdout(Stdio::null());
    Running(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")))
}

/// What a program says, where it ends well.
fn tell(program: &str, words: &[&str]) -> Option<String> {
    let said = Command::new(program).args(words).env("DISPLAY", DISPLAY).stderr(Stdio::null()).output();
    let said = said.unwrap_or_else(|error| panic!("{program}: {error}"));
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

fn wait<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(200));
    }
    panic!("{what}: not within {seconds} s");
}

fn keep(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screens");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    tell("import", &["-window", "root", path.to_str().unwrap()]).expect("a picture of the screen");
    path
}

#[test]
#[ignore = "needs Xvfb, xdotool and ImageMagick: apps/desktop/test window"]
fn a_window_is_opened_typed_in_answers_and_is_there_again() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let folder = store.folder().to_str().unwrap().to_owned();
    let model = real_model();
    let _screen = start("Xvfb", &[DISPLAY, "-screen", "0", "1280x860x24"]);
    wait("the screen", 20, || tell("xdotool", &["getdisplaygeometry"]));
    let program = env!("CARGO_BIN_EXE_pocketlm-desktop");
    let window = start(program, &["--folder", &folder, model.to_str().unwrap()]);
    let id = wait("the window", 60, || {
        tell("xdotool", &["search", "--name", "^pocketlm$"]).filter(|id| !id.is_empty())
    });
    thread::sleep(Duration::from_secs(8));
    // Nobody manages windows here, so none has the keys by itself.
    tell("xdotool", &["windowfocus", id.lines().next().unwrap()]).expect("the keys");
    tell("xdotool", &["mousemove", "500", "740", "click", "1"]);
    thread::sleep(Duration::from_secs(1));
    tell("xdotool", &["type", "--delay", "40", "Name three colours of the rainbow."]);
    keep("window-typed.png");
    tell("xdotool", &["key", "Return"]);
    let said = |talk: &Conversation| talk.nodes.get(1).map(|node| (node.text.clone(), node.end.clone()));
    let (text, _) = wait("the answer", 180, || {
        let kept = store.conversations().first().and_then(said)?;
        (kept.1 == End::Whole || kept.1 == End::Length).then_some(kept)
    });
    assert!(!text.trim().is_empty());
    keep("window-answer.png");
    drop(window);

    // Killed, and there again with what was said.
    let _window = start(program, &["--folder", &folder]);
    wait("the window again", 60, || {
        tell("xdotool", &["search", "--name", "^pocketlm$"]).filter(|id| !id.is_empty())
    });
    thread::sleep(Duration::from_secs(4));
    keep("window-again.png");
    assert_eq!(store.conversations().first().and_then(said).map(|(text, _)| text), Some(text));
}
