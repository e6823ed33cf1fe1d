//! Joules, where the system tells them: Linux's counters of the processor's packages (RAPL). A GPU's are not read here.

use std::fs;
use std::path::{Path, PathBuf};

/// Counters of microjoules that begin anew somewhere.
#[derive(Debug)]
pub(crate) struct Energy {
    packages: Vec<Package>,
}

#[derive(Debug)]
struct Package {
    counter: PathBuf,
    wraps: u64,
    last: u64,
    sum: u64,
}

impl Energy {
    /// The processor's, where they can be read.
    pub(crate) fn of_cpu() -> Option<Self> {
        Self::in_folder(Path::new("/sys/class/powercap"))
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            // `intel-rapl:0` is a package, `intel-rapl:0:0` a part of it; AMD's are called so too.
            let is_package =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.matches(':').count() == 1);
            if is_package {
                let (counter, wraps) = (path.join("energy_uj"), number(&path.join("max_energy_range_uj"))?);
                let last = number(&counter)?;
                packages.push(Package { counter, wraps, last, sum: 0 });
            }
        }
        (!packages.is_empty()).then_some(Self { packages })
    }

    /// Joules since the beginning.
    pub(crate) fn joules(&mut self) -> f64 {
        for package in &mut self.packages {
            if let Some(now) = number(&package.counter) {
                let spent = now
                    .checked_sub(package.last)
                    .unwrap_or(now + (package.wraps.saturating_sub(package.last)));
                (package.sum, package.last) = (package.sum + spent, now);
            }
        }
        self.packages.iter().map(|package| package.sum).sum::<u64>() as f64 / 1e6
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_end() {
        let folder = std::env::temp_dir().join(format!("pocketlm-rapl-{}", std::process::id()));
        let package = folder.join("intel-rapl:0");
        for path in [&package, &folder.join("intel-rapl:0:0")] {
            fs::create_dir_all(path).unwrap();
            fs::write(path.join("max_energy_range_uj"), "10000000\n").unwrap();
            fs::write(path.join("energy_uj"), "9000000\n").unwrap();
        }
        let mut energy = Energy::in_folder(&folder).unwrap();
        fs::write(package.join("energy_uj"), "500000\n").unwrap();
        assert!((energy.joules() - 1.5).abs() < 1e-9);
        fs::write(package.join("energy_uj"), "2500000\n").unwrap();
        assert!((energy.joules() - 3.5).abs() < 1e-9);
        fs::remove_dir_all(&folder).unwrap();
        assert!(Energy::in_folder(&folder).is_none());
    }
}
