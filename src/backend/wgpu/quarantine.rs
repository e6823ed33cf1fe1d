//! What is known of a device's numbers: the pipelines that compute what their twins do, and the variants that do not and
//! are in quarantine. Kept in a file beside the measurements, by device, driver and version, so that a start checks only
//! what is new; another driver is another device, which is checked anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::device::{DeviceInfo, Options};
use super::pipelines::{Key, Source};
use crate::base::checksum;
use crate::error::{Error, Result};
use crate::kernel::{Form, KernelId, Variant, compose};

/// The most devices that the file keeps; the one written longest ago goes first.
const MOST_DEVICES: usize = 8;
/// The most pipelines that are kept of a device, several times those of a model; others are checked again.
const MOST_RIGHT: usize = 4096;
/// The most variants in quarantine that are kept of a device: more than there are.
const MOST_WRONG: usize = 1024;
/// Losses of the device while a variant was checked after which it is the variant's doing: one may be chance.
const MOST_LOSSES: u32 = 2;
/// The most bytes that are read.
const MOST_BYTES: u64 = 4 << 20;

/// A variant of a kernel in a form that is not used on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Kernel, variant and form: `matvec thread q4_0 Add`.
    pub what: String,
    /// The case that was wrong, and its worst element; or why the driver does not compile it.
    pub why: String,
}

/// What is known of a device, by digests of what was compiled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    device: String,
    right: BTreeSet<String>,
    wrong: BTreeMap<String, Quarantined>,
    /// Checks of a variant in which the device was lost.
    #[serde(default)]
    losses: BTreeMap<String, u32>,
}

/// The file: devices, the one that was written last before the others.
type Book = Vec<Known>;

/// What is known of the open device.
#[derive(Debug)]
pub(super) struct Quarantine {
    folder: Option<PathBuf>,
    /// What else than text and overrides decides what a driver is given.
    mode: String,
    known: Mutex<Known>,
    texts: Mutex<HashMap<Source, u64>>,
}

impl Quarantine {
    /// What `folder` knows of a device, if there is one.
    pub(super) fn open(info: &DeviceInfo, options: &Options) -> Self {
        let folder = options.tuning.clone();
        let known = folder.as_ref().map_or_else(Known::default, |folder| Known::read(folder, info));
        let mode = format!("spirv {} checked {} floor {}", info.spirv, options.checked, options.floor);
        let known = Mutex::new(Known { device: name(info), ..known });
        Self { folder, mode, known, texts: Mutex::default() }
    }

    /// Whether a pipeline is known to be right, or its variant to be wrong; `None` where nobody has checked it.
    pub(super) fn verdict(&self, key: &Key, variant: &'static Variant) -> Option<bool> {
        if self.holds(key.0, variant) {
            return Some(false);
        }
        let digest = self.of_pipeline(key, variant);
        locked(&self.known).right.contains(&digest).then_some(true)
    }

    /// Whether a variant is in quarantine.
    pub(super) fn holds(&self, source: Source, variant: &'static Variant) -> bool {
        if locked(&self.known).wrong.is_empty() {
            return false;
        }
        let digest = self.of_variant(source, variant);
        locked(&self.known).wrong.contains_key(&digest)
    }

    /// Notes that a pipeline computes what its twin does.
    pub(super) fn trust(&self, key: &Key, variant: &'static Variant) {
        let digest = self.of_pipeline(key, variant);
        locked(&self.known).right.insert(digest);
    }

    /// Takes a variant out of use.
    pub(super) fn put(&self, source: Source, variant: &'static Variant, why: String) {
        let digest = self.of_variant(source, variant);
        let Source { kernel, form, .. } = source;
        let what = what(kernel, variant, form);
        locked(&self.known).wrong.insert(digest, Quarantined { what, why });
    }

    /// Notes that the device was lost while a variant was checked.
    pub(super) fn suspect(&self, source: Source, variant: &'static Variant, why: &str) {
        let digest = self.of_variant(source, variant);
        let losses = {
            let mut known = locked(&self.known);
            let losses = known.losses.entry(digest).or_default();
            *losses += 1;
            *losses
        };
        if losses >= MOST_LOSSES {
            self.put(source, variant, why.into());
        }
    }

    /// Why the variants of a kernel in a form are in quarantine, of those that are.
    pub(super) fn reasons(&self, kernel: KernelId, form: Form) -> Vec<Quarantined> {
        let variants = kernel.kernel().variants.iter();
        let digests =
            variants.map(|variant| self.of_variant(Source { kernel, variant: variant.name, form }, variant));
        let digests: Vec<String> = digests.collect();
        let known = locked(&self.known);
        digests.iter().filter_map(|digest| known.wrong.get(digest).cloned()).collect()
    }

    /// Everything in quarantine.
    pub(super) fn list(&self) -> Vec<Quarantined> {
        locked(&self.known).wrong.values().cloned().collect()
    }

    /// Writes what is known to the file, where there is a folder, beside what others wrote meanwhile.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] with the file.
    pub(super) fn keep(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let known = locked(&self.known).clone();
        let mut book = read(&file(folder));
        let written = book.iter().position(|other| other.device == known.device).map(|at| book.remove(at));
        let all = written.unwrap_or_default().and(known);
        book.insert(0, all);
        book.truncate(MOST_DEVICES);
        write(folder, &book)
    }

    fn of_variant(&self, source: Source, variant: &'static Variant) -> String {
        let known = locked(&self.texts).get(&source).copied();
        let text = known.unwrap_or_else(|| {
            // A variant without a text for the form is compiled for it nowhere.
            let text = compose(variant, source.form).unwrap_or_default();
            let digest = checksum(format!("{:?} {} {text}", source, self.mode).as_bytes());
            locked(&self.texts).insert(source, digest);
            digest
        });
        format!("{text:016x}")
    }

    fn of_pipeline(&self, (source, overrides): &Key, variant: &'static Variant) -> String {
        let text = self.of_variant(*source, variant);
        format!("{:016x}", checksum(format!("{text} {overrides:?}").as_bytes()))
    }
}

impl Quarantined {
    /// What `folder` says of a device; nothing where nobody checked it or the file is no file of ours.
    pub fn read(folder: &Path, info: &DeviceInfo) -> Vec<Self> {
        Known::read(folder, info).wrong.into_values().collect()
    }

    /// Forgets every device, right and wrong: each is checked again.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] with the file.
    pub fn forget(folder: &Path) -> Result<()> {
        let file = file(folder);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::from(error).in_file(&file)),
            _ => Ok(()),
        }
    }
}

impl Known {
    fn read(folder: &Path, info: &DeviceInfo) -> Self {
        let name = name(info);
        read(&file(folder)).into_iter().find(|known| known.device == name).unwrap_or_default()
    }

    /// What both know, within bounds.
    fn and(mut self, other: Self) -> Self {
        self.right.extend(other.right);
        self.wrong.extend(other.wrong);
        for (digest, losses) in other.losses {
            let known = self.losses.entry(digest).or_default();
            *known = losses.max(*known);
        }
        while self.right.len() > MOST_RIGHT {
            self.right.pop_first();
        }
        while self.wrong.len() > MOST_WRONG {
            self.wrong.pop_first();
        }
        while self.losses.len() > MOST_WRONG {
            self.losses.pop_first();
        }
        Self { device: other.device, ..self }
    }
}

/// Kernel, variant and form in words.
pub(super) fn what(kernel: KernelId, variant: &Variant, form: Form) -> String {
    format!("{} {} {form}", kernel.kernel().name, variant.name).trim_end().to_owned()
}

/// What the numbers of a device depend on beside what it is given.
fn name(info: &DeviceInfo) -> String {
    let DeviceInfo { name, backend, driver, .. } = info;
    format!("{name}, {backend}, {driver}, pocketlm {}", env!("CARGO_PKG_VERSION"))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("quarantine.json")
}

/// The file as it is; a missing, foreign or vast one is empty, for all in it can be checked again.
fn read(file: &Path) -> Book {
    let bytes = fs::metadata(file).and_then(|about| match about.len() {
        0..=MOST_BYTES => fs::read(file),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large")),
    });
    let book = match bytes {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::new()),
        Err(error) => Err(error),
    };
    book.unwrap_or_else(|error| {
        log::warn!("{} is not used: {error}", file.display());
        Book::new()
    })
}

/// Whole or not at all: two programs, or two threads, may write at the same time.
fn write(folder: &Path, book: &Book) -> Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let file = file(folder);
    let located = |error: io::Error| Error::from(error).in_file(&file);
    fs::create_dir_all(folder).map_err(located)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let fresh = folder.join(format!("quarantine-{}-{count}.new", std::process::id()));
    let json = serde_json::to_vec_pretty(book).map_err(|error| located(error.into()))?;
    fs::write(&fresh, json).and_then(|()| fs::rename(&fresh, &file)).map_err(located)
}

/// Nothing here is left half done by a panic.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Format;

    fn info(driver: &str) -> DeviceInfo {
        DeviceInfo { driver: driver.into(), ..DeviceInfo::default() }
    }

    fn key(variant: usize, overrides: &[(&'static str, u64)]) -> (Key, &'static Variant) {
        let form =
            Form { format: Some(Format::Q4_0), epilogue: Some(crate::kernel::Epilogue::Add), kv: None };
        let variant = &KernelId::Matvec.kernel().variants[variant];
        let source = Source { kernel: KernelId::Matvec, variant: variant.name, form };
        ((source, overrides.to_vec()), variant)
    }

    #[test]
    fn a_pipeline_is_right_by_its_overrides_and_a_variant_wrong_whatever_they_are() {
        let quarantine = Quarantine::open(&info("one"), &Options::default());
        let (key_a, variant) = key(0, &[("WG", 32)]);
        let (key_b, _) = key(0, &[("WG", 64)]);
        assert_eq!(quarantine.verdict(&key_a, variant), None);
        quarantine.trust(&key_a, variant);
        assert_eq!(quarantine.verdict(&key_a, variant), Some(true));
        assert_eq!(quarantine.verdict(&key_b, variant), None);
        quarantine.put(key_b.0, variant, "off".into());
        assert_eq!([&key_a, &key_b].map(|key| quarantine.verdict(key, variant)), [Some(false); 2]);
        let (other, variant) = key(1, &[("WG", 64)]);
        assert_eq!(quarantine.verdict(&other, variant), None);
        let reasons = quarantine.reasons(KernelId::Matvec, key_a.0.form);
        assert_eq!(reasons, [Quarantined { what: "matvec subgroup q4_0 Add".into(), why: "off".into() }]);
        assert_eq!(quarantine.reasons(KernelId::Matvec, Form::default()), []);
        quarantine.keep().unwrap();
    }

    #[test]
    fn the_file_is_of_a_driver_is_bounded_and_a_foreign_one_is_empty() {
        let folder = std::env::temp_dir().join(format!("pocketlm-quarantine-{}", std::process::id()));
        let options = Options { tuning: Some(folder.clone()), ..Options::default() };
        let open = |driver: &str| Quarantine::open(&info(driver), &options);
        let ((source, overrides), variant) = key(2, &[]);
        let key = (source, overrides);
        let (first, second) = (open("one"), open("one"));
        first.put(source, variant, "off".into());
        first.keep().unwrap();
        assert_eq!(open("one").verdict(&key, variant), Some(false));
        assert_eq!(open("two").verdict(&key, variant), None);
        let checked = Options { checked: true, ..options.clone() };
        assert_eq!(Quarantine::open(&info("one"), &checked).verdict(&key, variant), None);
        // What another wrote meanwhile stays.
        let (other, right) = self::key(4, &[]);
        second.trust(&other, right);
        second.keep().unwrap();
        assert_eq!(open("one").verdict(&key, variant), Some(false));
        assert_eq!(open("one").verdict(&other, right), Some(true));
        assert_eq!(Quarantined::read(&folder, &info("one")).len(), 1);

        // A device that is lost in one check may be lost by chance, and is not in the same check again.
        for (start, due) in [(0, None), (1, Some(false))] {
            let quarantine = open("three");
            assert_eq!(quarantine.verdict(&key, variant), None, "start {start}");
            quarantine.suspect(key.0, variant, "lost");
            assert_eq!(quarantine.verdict(&key, variant), due, "start {start}");
            quarantine.keep().unwrap();
        }
        assert_eq!(open("three").verdict(&key, variant), Some(false));

        for driver in 0..MOST_DEVICES + 3 {
            open(&driver.to_string()).keep().unwrap();
        }
        assert_eq!(read(&file(&folder)).len(), MOST_DEVICES);
        assert_eq!(open("one").verdict(&key, variant), None, "the oldest is kept");
        let many = Known { right: (0..MOST_RIGHT + 9).map(|i| i.to_string()).collect(), ..Known::default() };
        assert_eq!(many.and(Known::default()).right.len(), MOST_RIGHT);

        first.keep().unwrap();
        let whole = fs::read(file(&folder)).unwrap();
        for foreign in [&whole[..whole.len() / 2], b"{}", b"", &[b' '; MOST_BYTES as usize + 1]] {
            fs::write(file(&folder), foreign).unwrap();
            assert_eq!(open("one").verdict(&key, variant), None);
        }
        first.keep().unwrap();
        assert_eq!(open("one").verdict(&key, variant), Some(false));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        Quarantined::forget(&folder).unwrap();
        Quarantined::forget(&folder).unwrap();
        fs::remove_dir(&folder).unwrap();
    }
}
