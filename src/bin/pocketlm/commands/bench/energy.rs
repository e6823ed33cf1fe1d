//! What the platform says of energy: RAPL's counters for the CPU (packages, without the mainboard), what
//! `nvidia-smi` says of the power of the one NVIDIA GPU. Nothing elsewhere: the table says n/a.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A source of energy figures.
pub(super) enum Energy {
    Rapl { packages: Vec<Package>, begun: Vec<u64> },
    Nvidia(Nvidia),
}

/// A processor with a counter of microjoules that begins anew at `wraps`.
pub(super) struct Package {
    counter: PathBuf,
    wraps: u64,
}

/// A running `nvidia-smi`.
pub(super) struct Nvidia {
    child: Child,
    /// Watts since the beginning of the measurement.
    watts: Arc<Mutex<Vec<f64>>>,
}

impl Energy {
    /// The source for the device, where there is one.
    pub(super) fn of(is_cpu: bool, device: &str) -> Option<Self> {
        match is_cpu {
            true => rapl(Path::new("/sys/class/powercap")),
            false if device.to_lowercase().contains("nvidia") => nvidia(),
            false => None,
        }
    }

    /// A measurement begins.
    pub(super) fn begin(&mut self) {
        match self {
            Self::Rapl { packages, begun } => *begun = packages.iter().filter_map(Package::read).collect(),
            Self::Nvidia(nvidia) => nvidia.watts.lock().unwrap_or_else(PoisonError::into_inner).clear(),
        }
    }

    /// Joules since [`Self::begin`], `time` ago; none where the source gave no figure meanwhile.
    pub(super) fn joules(&mut self, time: Duration) -> Option<f64> {
        match self {
            Self::Rapl { packages, begun } => {
                let now: Vec<u64> = packages.iter().filter_map(Package::read).collect();
                let is_whole = now.len() == packages.len() && begun.len() == packages.len();
                let spent = packages.iter().zip(begun.iter().zip(&now));
                is_whole.then(|| {
                    spent.map(|(package, (begun, now))| package.since(*begun, *now)).sum::<u64>() as f64 / 1e6
                })
            }
            Self::Nvidia(nvidia) => {
                let watts = nvidia.watts.lock().unwrap_or_else(PoisonError::into_inner);
                let mean = watts.iter().sum::<f64>() / watts.len() as f64;
                (!watts.is_empty()).then_some(mean * time.as_secs_f64())
            }
        }
    }
}

fn rapl(folder: &Path) -> Option<Energy> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        // `intel-rapl:0` is a package, `intel-rapl:0:0` a part of it; AMD's are called so too.
        let is_package = path.file_name()?.to_str()?.matches(':').count() == 1;
        if is_package {
            let wraps = fs::read_to_string(path.join("max_energy_range_uj")).ok()?.trim().parse().ok()?;
            packages.push(Package { counter: path.join("energy_uj"), wraps });
        }
    }
    let is_readable = !packages.is_empty() && packages.iter().all(|package| package.read().is_some());
    is_readable.then_some(Energy::Rapl { packages, begun: Vec::new() })
}

impl Package {
    fn read(&self) -> Option<u64> {
        fs::read_to_string(&self.counter).ok()?.trim().parse().ok()
    }

    fn since(&self, begun: u64, now: u64) -> u64 {
        if now >= begun { now - begun } else { self.wraps.saturating_sub(begun) + now }
    }
}

/// Asks for the power each 50 ms; nothing where there is another number of GPUs than one.
fn nvidia() -> Option<Energy> {
    let query = ["--query-gpu=power.draw.instant", "--format=csv,noheader,nounits"];
    let once = Command::new("nvidia-smi").args(query).output().ok().filter(|once| once.status.success())?;
    let once = String::from_utf8(once.stdout).ok()?;
    if once.lines().count() != 1 || once.trim().parse::<f64>().is_err() {
        return None;
    }
    let mut child = Command::new("nvidia-smi")
        .args(query)
        .arg("--loop-ms=50")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let lines = BufReader::new(child.stdout.take()?).lines();
    let watts = Arc::new(Mutex::new(Vec::new()));
    let heard = watts.clone();
    thread::spawn(move || {
        for watts in lines.map_while(Result::ok).filter_map(|line| line.trim().parse::<f64>().ok()) {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(watts);
        }
    });
    Some(Energy::Nvidia(Nvidia { child, watts }))
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_added_and_a_counter_may_begin_anew() {
        let folder = std::env::temp_dir().join(format!("pocketlm-rapl-{}", std::process::id()));
        let write = |name: &str, energy: u64| {
            let path = folder.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("energy_uj"), format!("{energy}\n")).unwrap();
            fs::write(path.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        write("intel-rapl:0", 9_000_000);
        write("intel-rapl:1", 1_000_000);
        write("intel-rapl:0:0", 0);
        let mut energy = rapl(&folder).unwrap();
        energy.begin();
        write("intel-rapl:0", 500_000);
        write("intel-rapl:1", 3_000_000);
        write("intel-rapl:0:0", 5_000_000);
        let joules = energy.joules(Duration::from_secs(1));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(joules, Some(1.5 + 2.0));
        assert!(energy.joules(Duration::from_secs(1)).is_none(), "the counters are gone");
        assert!(rapl(&folder).is_none());
    }
}
