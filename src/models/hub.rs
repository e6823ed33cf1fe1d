//! Files of the Hugging Face hub: in the cache that its own tools keep, else fetched with the user's own curl.
//!
//! The cache's layout, and what the environment says about it, follow the hub's documentation ("Manage
//! huggingface_hub cache-system", "Environment variables"): `models--ORG--NAME/refs/BRANCH` holds a commit,
//! `models--ORG--NAME/snapshots/COMMIT/FILE` is the file.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use etcetera::BaseStrategy;

use super::manifest::{HubFile, Known, Recommended, Source};
use super::pull::Watch;
use super::tool::{self, Growth};

const CURL: &[&[&str]] = &[&["curl"]];

/// `ORG/NAME`, or `ORG/NAME:FILE`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    repo: String,
    file: Option<String>,
}

impl Address {
    /// What a user typed, where it can be an address.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (repo, file) = match text.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (text, None),
        };
        let is_word = |word: &str| {
            !word.is_empty()
                && !word.starts_with('.')
                && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let is_repo = repo.split_once('/').is_some_and(|(org, name)| is_word(org) && is_word(name));
        let is_file = file.is_none_or(|file| file.split('/').all(is_word));
        (is_repo && is_file).then(|| Self { repo: repo.to_owned(), file: file.map(str::to_owned) })
    }

    /// `ORG/NAME:FILE`, where a file is named.
    pub(super) fn full_name(&self) -> Option<String> {
        self.file.as_ref().map(|file| format!("{}:{file}", self.repo))
    }

    /// Nothing of it is on this machine.
    pub(super) fn missing(&self) -> Error {
        let name = self.full_name().unwrap_or_else(|| self.repo.clone());
        let pull = self.full_name().unwrap_or_else(|| format!("{}:FILE.gguf", self.repo));
        Error::new(Kind::NotFound, format!("{name} is not in the Hugging Face cache"))
            .hint(format!("fetch it with `pocketlm pull {pull}`"))
    }
}

impl HubFile {
    pub(super) fn address(&self) -> Address {
        Address { repo: self.repo.clone(), file: Some(self.file.clone()) }
    }
}

/// What the hub's cache has at the address, the main branch first: the file, or without one the folder of a
/// checkpoint (`config.json`) or the only GGUF.
pub(super) fn in_cache(address: &Address) -> Result<Vec<PathBuf>> {
    let repo = folder()?.join(format!("models--{}", address.repo.replace('/', "--")));
    let mut snapshots = entries(&repo.join("snapshots"));
    let main = fs::read_to_string(repo.join("refs").join("main")).unwrap_or_default();
    snapshots.sort_by_key(|path| path.file_name().is_none_or(|name| name != main.trim()));
    let mut found = Vec::new();
    for snapshot in snapshots {
        match &address.file {
            Some(file) => found.extend(Some(snapshot.join(file)).filter(|path| path.is_file())),
            None => found.extend(checkpoint(&snapshot, &address.repo)?),
        }
    }
    Ok(found)
}

fn checkpoint(snapshot: &Path, repo: &str) -> Result<Option<PathBuf>> {
    if snapshot.join("config.json").is_file() {
        return Ok(Some(snapshot.to_owned()));
    }
    let mut files = entries(snapshot);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    if files.len() > 1 {
        let names: Vec<_> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        return Err(Error::invalid(format!("{repo} has several model files"))
            .hint(format!("name one as {repo}:FILE: {}", names.join(", "))));
    }
    Ok(files.pop())
}

/// A folder's entries in order of name; none where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .map_or_else(|_| Vec::new(), |entries| entries.flatten().map(|e| e.path()).collect());
    paths.sort();
    paths
}

/// Asks the hub about a file of the main branch: its size and SHA-256.
pub(super) fn look_up(address: &Address) -> Result<Known> {
    let Some((name, file)) = address.full_name().zip(address.file.clone()) else {
        return Err(Error::invalid(format!("{} is a whole repository", address.repo))
            .hint(format!("name one of its files: {}:FILE.gguf", address.repo)));
    };
    if !file.ends_with(".gguf") {
        return Err(Error::invalid(format!("{name} is not a GGUF file"))
            .hint("fetch a repository of safetensors with the hub's own tool: hf download ORG/REPO"));
    }
    let file = HubFile { repo: address.repo.clone(), revision: "main".to_owned(), file };
    let mut curl = curl()?;
    curl.args([
        "--head",
        "--location",
        "--silent",
        "--show-error",
        "--connect-timeout",
        "20",
        "--config",
        "-",
    ]);
    let headers = tool::ask(curl, &config(&file)?)?;
    let header = |wanted: &str| {
        let mut lines = headers.lines().rev().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
        Some(value.trim().trim_matches('"').to_ascii_lowercase())
    };
    let sha256 = header("x-linked-etag").filter(|sha| is_sha256(sha));
    let bytes = header("x-linked-size").and_then(|size| size.parse().ok());
    let Some((sha256, bytes)) = sha256.zip(bytes) else {
        let status = headers.lines().next().unwrap_or("no answer").trim();
        return Err(Error::new(Kind::NotFound, format!("the hub does not offer {name} ({status})"))
            .hint("check the name; a gated repository needs HF_TOKEN"));
    };
    let sources = vec![Source::Hub(file)];
    let (about, licence) = (String::new(), String::new());
    Ok(Known { name, about, licence, bytes, sha256, sources, sampling: Recommended::default() })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// Fetches a file of `bytes` bytes to `part`, taking up again what is there already.
pub(super) fn download(
    file: &HubFile,
    part: &Path,
    scratch: &Path,
    bytes: u64,
    watch: &mut Watch<'_>,
) -> Result<PathBuf> {
    let here = fs::metadata(part).map_or(0, |part| part.len());
    if here < bytes {
        let mut curl = curl()?;
        curl.args(["--fail", "--location", "--silent", "--show-error", "--connect-timeout", "20"])
            .args(["--retry", "3", "--continue-at", "-", "--config", "-", "--output"])
            .arg(part);
        let growth = Growth { what: &file.file, at: part, total: bytes };
        tool::run(curl, &config(file)?, &growth, scratch, watch)?;
    }
    Ok(part.to_owned())
}

/// What a user would type on another machine.
pub(super) fn by_hand(file: &HubFile) -> String {
    format!("curl -LO {}", url("https://huggingface.co", file))
}

fn curl() -> Result<std::process::Command> {
    if variable("HF_HUB_OFFLINE").is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no" | "off"))
    {
        return Err(Error::new(Kind::NotFound, "HF_HUB_OFFLINE forbids to ask the Hugging Face hub"));
    }
    tool::first_there(CURL).ok_or_else(|| Error::new(Kind::NotFound, "there is no curl"))
}

fn url(endpoint: &str, file: &HubFile) -> String {
    format!("{}/{}/resolve/{}/{}", endpoint.trim_end_matches('/'), file.repo, file.revision, file.file)
}

/// The address and the token for curl's stdin: a command line can be read by every user of the machine.
fn config(file: &HubFile) -> Result<String> {
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let mut config = format!("url = {}\n", quoted(&url(&endpoint, file)));
    if let Some(token) = token()? {
        config.push_str(&format!("header = {}\n", quoted(&format!("Authorization: Bearer {token}"))));
    }
    Ok(config)
}

/// A string of curl's configuration language; control characters, which none of ours needs, are dropped.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

fn token() -> Result<Option<String>> {
    if let Some(token) = variable("HF_TOKEN") {
        return Ok(Some(token));
    }
    let path = match variable("HF_TOKEN_PATH") {
        Some(path) => path.into(),
        None => home()?.join("token"),
    };
    Ok(fs::read_to_string(path).ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
}

/// The folder of the hub's cache.
fn folder() -> Result<PathBuf> {
    match variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        Some(folder) => Ok(folder.into()),
        None => Ok(home()?.join("hub")),
    }
}

/// The folder of the hub's tools. They read `XDG_CACHE_HOME` on every platform.
fn home() -> Result<PathBuf> {
    if let Some(home) = variable("HF_HOME") {
        return Ok(home.into());
    }
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return Ok(Path::new(&cache).join("huggingface"));
    }
    let base = etcetera::choose_base_strategy()
        .map_err(|error| Error::new(Kind::Io, "this user has no home folder").caused_by(error))?;
    Ok(base.home_dir().join(".cache").join("huggingface"))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        let address = |repo: &str, file: Option<&str>| {
            Some(Address { repo: repo.to_owned(), file: file.map(str::to_owned) })
        };
        assert_eq!(Address::parse("org/repo"), address("org/repo", None));
        assert_eq!(Address::parse("org/repo-1.5:a/b.gguf"), address("org/repo-1.5", Some("a/b.gguf")));
        for path in
            ["model", "/a/b", "./a", "../a", "a/b/c", "a/b:", "a/b:../../c", "a/b:/etc/c", "C:\\a/b", "a/b c"]
        {
            assert_eq!(Address::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_token_stays_inside_its_quotes() {
        assert_eq!(quoted("a\"\nurl = \"b\\"), r#""a\"url = \"b\\""#);
    }
}
