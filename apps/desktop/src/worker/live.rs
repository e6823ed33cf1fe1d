//! The sessions of the branches that were answered lately. A branch that another begins with shares what is computed
//! ([`Session::branch`]).

use std::fs;

use pocketlm::{Model, Result, SaveOptions, Session};

use crate::store::Store;

/// Sessions that are kept; others are made again when they are wanted.
const MOST: usize = 6;

/// The sessions, the latest last.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    live: Vec<Live>,
    /// Files of branches that went on, and have another file now.
    outgrown: Vec<(String, usize)>,
}

#[derive(Debug)]
struct Live {
    conversation: String,
    /// The nodes that it has heard.
    path: Vec<usize>,
    session: Session,
}

impl Sessions {
    /// The session for an answer after `path`: the branch itself, where it ends here; a branch of the one that has most of it; what
    /// was saved of it; else a new one.
    pub(super) fn take(
        &mut self,
        model: &Model,
        store: &Store,
        conversation: &str,
        path: &[usize],
    ) -> Session {
        let shared = |live: &Live| match live.conversation == conversation {
            true => live.path.iter().zip(path).take_while(|(one, other)| one == other).count(),
            false => 0,
        };
        let best = (0..self.live.len()).max_by_key(|&at| shared(&self.live[at]));
        match best.map(|at| (at, shared(&self.live[at]))) {
            Some((at, length)) if length > 0 && length == self.live[at].path.len() => {
                let Live { conversation, path, session } = self.live.remove(at);
                self.outgrown.extend(path.last().map(|&node| (conversation, node)));
                session
            }
            Some((at, length)) if length > 0 => self.live[at].session.branch(),
            _ => self.saved(model, store, conversation, path).unwrap_or_else(|| model.session()),
        }
    }

    /// The latest part of `path` that was saved; what is of another model or cannot be read is as if it were not there.
    fn saved(&mut self, model: &Model, store: &Store, conversation: &str, path: &[usize]) -> Option<Session> {
        let (node, file) = path
            .iter()
            .rev()
            .map(|&node| (node, store.session(conversation, node)))
            .find(|(_, file)| file.is_file())?;
        let session = model.restore(&file).inspect_err(|error| log::info!("made again: {error}")).ok()?;
        self.outgrown.push((conversation.to_owned(), node));
        Some(session)
    }

    /// Keeps a session that has heard `path`.
    pub(super) fn put(&mut self, conversation: &str, path: Vec<usize>, session: Session) {
        self.live.push(Live { conversation: conversation.to_owned(), path, session });
        if self.live.len() > MOST {
            self.live.remove(0);
        }
    }

    /// Saves the session that ends with `node`.
    pub(super) fn keep(&self, store: &Store, conversation: &str, node: usize) -> Result<()> {
        let ends = |live: &&Live| live.conversation == conversation && live.path.last() == Some(&node);
        let Some(live) = self.live.iter().rfind(ends) else { return Ok(()) };
        let path = store.session(conversation, node);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        live.session.save(path, &SaveOptions::default())
    }

    /// Removes files of branches that went on, once what they went on to is saved.
    pub(super) fn tidy(&mut self, store: &Store) {
        for (conversation, node) in self.outgrown.drain(..) {
            let path = store.session(&conversation, node);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    log::info!("{}: {error}", path.display())
                }
                _ => {}
            }
        }
    }

    /// Forgets a conversation.
    pub(super) fn forget(&mut self, conversation: &str) {
        self.live.retain(|live| live.conversation != conversation);
    }
}
