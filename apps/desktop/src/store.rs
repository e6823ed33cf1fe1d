//! Conversations and settings on disk. A file is written beside its place, synced, and renamed: whatever happens on the way, be it
//! that the program is killed, it is whole, as it was before or new.
//!
//! `conversations/ID/conversation.json` is the tree; beside it `NODE.session` is what the engine keeps of the branch that ends with
//! that node: its tokens, and of an answer under way how it goes on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use pocketlm::{Error, Kind, Result};

use crate::conversation::Conversation;
use crate::settings::Settings;

/// The folder of the app.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// In this folder, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the platform keeps what belongs to a person.
    ///
    /// # Errors
    /// `Io` where the person has no home folder.
    pub fn of_person() -> Result<Self> {
        let base = etcetera::choose_base_strategy().map_err(|error| {
            Error::new(Kind::Io, "this user has no home folder to keep conversations in")
                .caused_by(error)
                .hint("name a folder with --folder")
        })?;
        Ok(Self::new(base.data_dir().join("pocketlm").join("desktop")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The settings, or their defaults where there are none or none that can be read.
    pub fn settings(&self) -> Settings {
        let text = fs::read_to_string(self.settings_file());
        let settings = text.ok().and_then(|text| {
            let read = serde_json::from_str(&text);
            read.inspect_err(|error| log::warn!("settings.json is not used: {error}")).ok()
        });
        Settings::mended(settings.unwrap_or_default())
    }

    /// # Errors
    /// `Io` with the path.
    pub fn keep_settings(&self, settings: &Settings) -> Result<()> {
        write_json(&self.settings_file(), settings)
    }

    /// All conversations, the latest first. What cannot be read is left where it lies, and logged.
    pub fn conversations(&self) -> Vec<Conversation> {
        let mut found: Vec<Conversation> = entries(&self.folder.join("conversations"))
            .filter_map(|folder| {
                let read = read(&folder.join(FILE));
                read.inspect_err(|error| log::warn!("{}: {error}", folder.display())).ok()
            })
            .collect();
        found.sort_by_key(|conversation| std::cmp::Reverse(conversation.changed));
        found
    }

    /// # Errors
    /// `Io` with the path.
    pub fn keep(&self, conversation: &Conversation) -> Result<()> {
        write_json(&self.of(&conversation.id).join(FILE), conversation)
    }

    /// # Errors
    /// `Io` with the path.
    pub fn delete(&self, id: &str) -> Result<()> {
        let folder = self.of(id);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::from(error).in_file(folder)),
            _ => Ok(()),
        }
    }

    /// Where the engine keeps the branch of a conversation that ends with `node`.
    pub fn session(&self, id: &str, node: usize) -> PathBuf {
        self.of(id).join(format!("{node}.session"))
    }

    fn of(&self, id: &str) -> PathBuf {
        self.folder.join("conversations").join(id)
    }

    fn settings_file(&self) -> PathBuf {
        self.folder.join("settings.json")
    }
}

const FILE: &str = "conversation.json";

fn read(path: &Path) -> Result<Conversation> {
    let text = fs::read_to_string(path)?;
    let mut conversation: Conversation = serde_json::from_str(&text)
        .map_err(|error| Error::bad_file("not a conversation").caused_by(error))?;
    let is_own = path.parent().and_then(Path::file_name).is_some_and(|name| *name == *conversation.id);
    if !is_own || !conversation.is_sound() {
        return Err(Error::bad_file("the messages of this conversation do not hold together"));
    }
    conversation.interrupt();
    Ok(conversation)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|error| Error::internal(error.to_string()))?;
    replace(path, &text).map_err(|error| Error::from(error).in_file(path))
}

/// Writes a file that is whole at any moment.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::End;

    fn scratch(name: &str) -> Store {
        let folder = std::env::temp_dir().join(format!("pocketlm-desktop-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&folder);
        Store::new(folder)
    }

    #[test]
    fn what_was_kept_is_read_and_damage_is_passed_over() {
        let store = scratch("store");
        let mut talk = Conversation::new("a-1".into(), "Be brief.".into());
        talk.say("one");
        talk.changed = 5;
        store.keep(&talk).unwrap();
        let mut later = Conversation::new("b-2".into(), String::new());
        later.changed = 9;
        store.keep(&later).unwrap();
        for (id, text) in [("broken", "{"), ("other", r#"{"id":"a-1","title":"","nodes":[],"leaf":null}"#)] {
            fs::create_dir_all(store.of(id)).unwrap();
            fs::write(store.of(id).join(FILE), text).unwrap();
        }
        // A write that was cut short leaves this, and the file as it was.
        fs::write(store.of("a-1").join("conversation.new"), "{\"id").unwrap();
        let found = store.conversations();
        let ids: Vec<_> = found.iter().map(|talk| talk.id.as_str()).collect();
        assert_eq!(ids, ["b-2", "a-1"]);
        assert_eq!(found[1].nodes[1].end, End::Interrupted, "it was being written");
        store.delete("a-1").unwrap();
        store.delete("a-1").unwrap();
        assert_eq!(store.conversations().len(), 1);
        fs::remove_dir_all(store.folder()).unwrap();
    }

    #[test]
    fn settings_come_back() {
        let store = scratch("settings");
        assert_eq!(store.settings(), Settings::default());
        let chosen = Settings { zoom: 1.5, ..Settings::default() };
        store.keep_settings(&chosen).unwrap();
        assert_eq!(store.settings(), chosen);
        fs::write(store.settings_file(), "nonsense").unwrap();
        assert_eq!(store.settings(), Settings::default());
        fs::remove_dir_all(store.folder()).unwrap();
    }
}
