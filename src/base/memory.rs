//! How much memory the machine has, and how much of it this process may take, where the system tells.
//!
//! Linux and Android tell in `/proc/meminfo`, and by the control groups that the process is in: version 2 in `memory.max`,
//! version 1 in `memory.limit_in_bytes`; the smallest limit on the way up counts. Elsewhere the standard library has no
//! way to ask, and nothing is said.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Memory of the host, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What all processes have together, swap included.
    pub total: Option<u64>,
    /// What can be had now without pushing others out.
    pub available: Option<u64>,
    /// What the control group allows, where it allows less than all, swap included.
    pub limit: Option<u64>,
}

/// What of this process is in memory now, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Memory that it allocated.
    pub own: u64,
    /// Pages of files, the program's own among them: the system can take them back at any time.
    pub mapped: u64,
}

impl Memory {
    /// Of this machine, for this process.
    pub fn of_host() -> Self {
        Self::under(Path::new("/"))
    }

    /// The most that this process can have.
    pub fn most(&self) -> Option<u64> {
        [self.total, self.limit].into_iter().flatten().min()
    }

    fn under(root: &Path) -> Self {
        let Ok(meminfo) = read_to_string(root.join("proc/meminfo")) else { return Self::default() };
        let swap = field(&meminfo, "SwapTotal").unwrap_or(0);
        let total = field(&meminfo, "MemTotal").map(|total| total.saturating_add(swap));
        let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let groups: Vec<Group> =
            folders(root, &groups).iter().filter_map(|folder| Group::read(folder, swap)).collect();
        let limit = groups.iter().map(|group| group.limit).min();
        let free = groups.iter().map(|group| group.free).chain(field(&meminfo, "MemAvailable"));
        Self {
            total,
            available: free.min(),
            limit: limit.filter(|&limit| total.is_none_or(|total| limit < total)),
        }
    }
}

impl Resident {
    /// Of this process, where the system tells.
    pub fn now() -> Option<Self> {
        Self::parse(&read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let shared = field(status, "RssShmem")?;
        Some(Self { own: field(status, "RssAnon")? + shared, mapped: field(status, "RssFile")? })
    }
}

/// A control group that limits memory.
struct Group {
    limit: u64,
    free: u64,
}

impl Group {
    fn read(folder: &Path, swap: u64) -> Option<Self> {
        let number = |name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        // Version 2 says `max` where there is no limit, and version 1 a number beyond all memory.
        let memory = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
        let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
        // Pages of files that nobody has touched for a while go before a process is refused.
        let stat = read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let inactive = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
        let free = memory.saturating_sub(used.saturating_sub(inactive.unwrap_or(0)));
        let swap = number("memory.swap.max").map_or(swap, |most| most.min(swap));
        Some(Self { limit: memory.saturating_add(swap), free })
    }
}

/// The folders of the control groups named in `/proc/self/cgroup`, and of all above them.
fn folders(root: &Path, groups: &str) -> Vec<PathBuf> {
    let mount = root.join("sys/fs/cgroup");
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let of_memory = controllers.split(',').any(|controller| controller == "memory");
        let base = if of_memory { mount.join("memory") } else { mount.clone() };
        if of_memory || controllers.is_empty() {
            let path = Path::new(path.trim_start_matches('/'));
            folders.extend(path.ancestors().map(|above| base.join(above)));
        }
    }
    folders
}

/// The bytes of a line `name:   123 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const MEMINFO: &str = "MemTotal:  8000 kB\nMemFree: 100 kB\nMemAvailable:  3000 kB\nSwapTotal: 1000 kB\n";

    /// A machine of these files.
    fn machine(name: &str, files: &[(&str, &str)]) -> Memory {
        let root = std::env::temp_dir().join(format!("pocketlm-memory-{}-{name}", std::process::id()));
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let memory = Memory::under(&root);
        fs::remove_dir_all(&root).unwrap();
        memory
    }

    fn kib(total: u64, available: u64, limit: Option<u64>) -> Memory {
        let of = |kib: u64| Some(1024 * kib);
        Memory { total: of(total), available: of(available), limit: limit.and_then(of) }
    }

    #[test]
    fn a_machine_says_what_it_has() {
        assert_eq!(machine("plain", &[("proc/meminfo", MEMINFO)]), kib(9000, 3000, None));
        let unlimited = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/user/app\n"),
            ("sys/fs/cgroup/user/app/memory.max", "max\n"),
            ("sys/fs/cgroup/user/app/memory.current", "1024\n"),
        ];
        assert_eq!(machine("unlimited", &unlimited), kib(9000, 3000, None));
        assert_eq!(machine("silent", &[("proc/version", "")]), Memory::default());
    }

    #[test]
    fn the_smallest_group_counts() {
        let second = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/user/app\n"),
            ("sys/fs/cgroup/user/app/memory.max", "4194304\n"),
            ("sys/fs/cgroup/user/app/memory.current", "1048576\n"),
            ("sys/fs/cgroup/user/app/memory.swap.max", "0\n"),
            ("sys/fs/cgroup/user/app/memory.stat", "anon 5\ninactive_file 524288\n"),
            ("sys/fs/cgroup/user/memory.max", "2097152\n"),
            ("sys/fs/cgroup/user/memory.current", "1048576\n"),
        ];
        // 2 MiB and all swap above, 4 MiB and no swap below: the room is in the group above, the limit 3048 KiB.
        let memory = machine("second", &second);
        assert_eq!(memory, kib(9000, 1024, Some(3048)));
        assert_eq!(memory.most(), Some(1024 * 3048));
        let first = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "9:cpu,memory:/docker/1\n3:cpuset:/docker/1\n"),
            ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "2097152\n"),
            ("sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes", "1048576\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n"),
        ];
        assert_eq!(machine("first", &first), kib(9000, 1024, Some(3048)));
    }

    #[test]
    fn lies_are_not_believed() {
        let lies =
            "MemTotal: 99999999999999999999 kB\nMemAvailable: 18446744073709551615 kB\nSwapTotal: -1 kB\n";
        let memory = machine("lies", &[("proc/meminfo", lies), ("proc/self/cgroup", "nonsense\n0:\n::\n")]);
        assert_eq!(memory, Memory::default());
        assert_eq!(Resident::parse("RssAnon: 3 kB\nRssFile: 2 kB\n"), None);
        let status = "VmRSS: 9 kB\nRssAnon:\t 3 kB\nRssFile:\t 2 kB\nRssShmem:\t 1 kB\n";
        assert_eq!(Resident::parse(status), Some(Resident { own: 4096, mapped: 2048 }));
    }
}
