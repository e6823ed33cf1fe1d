//! Which variant of a hot kernel is the fastest on a device: measured on the loaded weights when a plan is first made
//! ready, and kept in a file by device, driver, version and shaders, so that the next start reads it there.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::device::DeviceInfo;
use crate::error::{Error, Result};
use crate::kernel::{Call, Fragment, KernelId, Variant};
use crate::plan::{Plan, Step};
use crate::quant::Format;

/// The kernels that take most of the time; they are worth the wait.
const HOT: &[KernelId] = &[KernelId::Matvec, KernelId::MatvecSwiglu, KernelId::Matmul];

/// The time that measuring may take for a model, shared by its kernels. A kernel that is not reached keeps its usual
/// variant for good: the next start is not to wait again.
pub(super) const BUDGET: Duration = Duration::from_secs(2);

/// The measurements of a device, by kernel and format: `matvec q4_0`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Picks(BTreeMap<String, Pick>);

/// What was measured of a kernel in a format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pick {
    /// The variant to use.
    pub variant: String,
    /// Microseconds of each variant that was measured and not found wrong.
    pub micros: BTreeMap<String, f64>,
}

/// The file: measurements by device.
type Book = BTreeMap<String, Picks>;

impl Picks {
    /// What is known of `info`, or nothing where nobody measured it or the file is no file of ours.
    pub fn read(folder: &Path, info: &DeviceInfo) -> Self {
        read(&file(folder)).remove(&name(info)).unwrap_or_default()
    }

    /// Keeps these for `info`.
    ///
    /// # Errors
    /// [`crate::Kind::Io`] with the file.
    pub fn write(&self, folder: &Path, info: &DeviceInfo) -> Result<()> {
        let file = file(folder);
        let mut book = read(&file);
        book.insert(name(info), self.clone());
        let located = |error: io::Error| Error::from(error).in_file(&file);
        fs::create_dir_all(folder).map_err(located)?;
        // Whole or not at all: two programs may start at the same time.
        let fresh = folder.join(format!("tuning-{}.json", std::process::id()));
        let json = serde_json::to_vec_pretty(&book).map_err(|error| located(error.into()))?;
        fs::write(&fresh, json).and_then(|()| fs::rename(&fresh, &file)).map_err(located)
    }

    /// Forgets every device.
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

    /// Each kernel and format with what was measured.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Pick)> {
        self.0.iter().map(|(key, pick)| (key.as_str(), pick))
    }

    /// The variant for a step, where it was measured.
    pub(super) fn of(&self, step: &Step) -> Option<&str> {
        self.0.get(&key(step)).map(|pick| pick.variant.as_str())
    }

    /// The steps of `plan` that are worth measuring and are not known: for each kernel and format the one with most to
    /// do.
    pub(super) fn unknown<'a>(&self, plan: &'a Plan) -> Vec<&'a Step> {
        let mut found: BTreeMap<String, &Step> = BTreeMap::new();
        for step in plan.steps.iter().filter(|step| HOT.contains(&step.kernel)) {
            let largest = found.entry(key(step)).or_insert(step);
            if flops(step) > flops(largest) {
                *largest = step;
            }
        }
        found.into_iter().filter(|(key, _)| !self.0.contains_key(key)).map(|(_, step)| step).collect()
    }

    /// Measures the variants of a step, the usual one first, until the deadline, and keeps the fastest of those that
    /// are right, or the usual one where there was no time. `measure` says how long the step takes, `is_right` whether
    /// its numbers are those of the twin, which is not asked about a variant that cannot win.
    pub(super) fn choose(
        &mut self,
        step: &Step,
        variants: &[&'static Variant],
        deadline: Instant,
        mut measure: impl FnMut(&'static Variant) -> Result<Duration>,
        mut is_right: impl FnMut(&'static Variant) -> Result<bool>,
    ) -> Result<()> {
        let mut best: Option<(&str, Duration)> = None;
        let mut micros = BTreeMap::new();
        for variant in variants {
            if Instant::now() >= deadline {
                log::info!("no time is left to measure {} as {}", key(step), variant.name);
                continue;
            }
            let took = measure(variant)?;
            if best.is_none_or(|(_, least)| took < least) {
                if !is_right(variant)? {
                    log::warn!("{} computes wrong numbers as {} and is not used", key(step), variant.name);
                    continue;
                }
                best = Some((variant.name, took));
            }
            micros.insert(variant.name.to_owned(), took.as_secs_f64() * 1e6);
        }
        if let Some((name, took)) = best {
            log::info!("{} is fastest as {name}: {:.0} µs", key(step), took.as_secs_f64() * 1e6);
        }
        if let Some(name) = best.map(|(name, _)| name).or(variants.first().map(|usual| usual.name)) {
            self.0.insert(key(step), Pick { variant: name.into(), micros });
        }
        Ok(())
    }
}

/// `step` alone, `times` times.
pub(super) fn repeated(plan: &Plan, step: &Step, times: usize) -> Arc<Plan> {
    Arc::new(Plan { steps: vec![step.clone(); times], name: "tuning".into(), ..plan.clone() })
}

fn key(step: &Step) -> String {
    match step.form.format {
        Some(format) => format!("{} {format}", step.home().name),
        None => step.home().name.to_owned(),
    }
}

fn flops(step: &Step) -> f64 {
    step.home().work(&step.params, Call { rows: 1, kv_len: 1 }, step.form).flops
}

/// What the speed of a kernel, and what it compiles to, depend on beside the kernel.
pub(super) fn name(info: &DeviceInfo) -> String {
    let DeviceInfo { name, backend, driver, has, .. } = info;
    let exact = if has.rounding { "" } else { ", exact" };
    let (version, shaders) = (env!("CARGO_PKG_VERSION"), digest_of_shaders());
    format!("{name}, {backend}, {driver}, pocketlm {version}{exact}, shaders {shaders:016x}")
}

/// Of the variants that are measured: what another build has made of them is to be measured again.
fn digest_of_shaders() -> u64 {
    let mut digest = DefaultHasher::new();
    for format in Format::ALL {
        (format.wgsl(), format.wgsl_codes()).hash(&mut digest);
    }
    for variant in HOT.iter().flat_map(|id| id.kernel().variants) {
        variant.name.hash(&mut digest);
        for fragment in variant.fragments {
            if let Fragment::Text(text) = fragment {
                text.hash(&mut digest);
            }
        }
    }
    digest.finish()
}

fn file(folder: &Path) -> PathBuf {
    folder.join("tuning.json")
}

/// The file as it is; a missing or foreign one is empty, for all in it can be measured again.
fn read(file: &Path) -> Book {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Book::new(),
        Err(error) => {
            log::warn!("{} cannot be read: {error}", file.display());
            return Book::new();
        }
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        log::warn!("{} is not used: {error}", file.display());
        Book::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Form, Home, Matvec};
    use crate::plan::Extent;
    use crate::quant::Format;

    fn step() -> Step {
        Step {
            label: "product".into(),
            kernel: KernelId::Matvec,
            params: vec![0; size_of::<<Matvec as Home>::Params>()],
            form: Form { format: Some(Format::Q4_0), ..Form::default() },
            extent: Extent::Tokens,
            args: Vec::new(),
        }
    }

    fn variants() -> Vec<&'static Variant> {
        Matvec::VARIANTS.iter().filter(|variant| !variant.needs.rounding).collect()
    }

    /// Microseconds by variant, in the order of the list.
    fn chosen(micros: &[u64], wrong: &str, deadline: Instant) -> Option<String> {
        let mut picks = Picks::default();
        let place = |variant: &Variant| variants().iter().position(|it| it.name == variant.name).unwrap();
        let measure = |variant: &'static Variant| Ok(Duration::from_micros(micros[place(variant)]));
        let is_right = |variant: &'static Variant| Ok(variant.name != wrong);
        picks.choose(&step(), &variants(), deadline, measure, is_right).unwrap();
        picks.of(&step()).map(str::to_owned)
    }

    #[test]
    fn the_fastest_that_is_right_is_chosen_in_time() {
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(chosen(&[3, 2, 1, 4], "none", later).as_deref(), Some("thread"));
        assert_eq!(chosen(&[3, 2, 1, 4], "thread", later).as_deref(), Some("team"));
        assert_eq!(chosen(&[3, 2, 1, 4], "none", Instant::now()).as_deref(), Some("subgroup"));
    }

    #[test]
    fn picks_are_kept_by_device_and_a_foreign_file_is_empty() {
        let folder = std::env::temp_dir().join(format!("pocketlm-tuning-{}", std::process::id()));
        let info = |driver: &str| DeviceInfo { driver: driver.into(), ..DeviceInfo::default() };
        let pick = Pick { variant: "thread".into(), micros: BTreeMap::from([("thread".into(), 1.5)]) };
        let picks = Picks(BTreeMap::from([("matvec q4_0".into(), pick)]));
        assert_eq!(Picks::read(&folder, &info("one")), Picks::default());
        picks.write(&folder, &info("one")).unwrap();
        Picks::default().write(&folder, &info("two")).unwrap();
        assert_eq!(Picks::read(&folder, &info("one")), picks);
        assert_eq!(Picks::read(&folder, &info("two")), Picks::default());
        fs::write(file(&folder), "{").unwrap();
        assert_eq!(Picks::read(&folder, &info("one")), Picks::default());
        Picks::forget(&folder).unwrap();
        Picks::forget(&folder).unwrap();
        fs::remove_dir(&folder).unwrap();
    }
}
