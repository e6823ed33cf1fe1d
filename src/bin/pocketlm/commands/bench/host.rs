//! What the system says of this process and this machine; nothing where it is not Linux.

use std::fs;

/// Lets the peak of memory begin anew from what is held now.
pub(super) fn forget_peak() {
    // Where the system does not offer it, the peak is that of the process, and no less true.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that the process had resident, in bytes: weights that are mapped and were read count.
pub(super) fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = field(&status, "VmHWM")?;
    line.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The processor's own name.
pub(super) fn cpu_name() -> Option<String> {
    fs::read_to_string("/proc/cpuinfo").ok().and_then(|info| field(&info, "model name").map(str::to_owned))
}

/// The value of `name: value` in its line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "VmHWMx:\t9 kB\nVmHWM:\t  1234 kB\nmodel name\t: AMD: EPYC\n";
        assert_eq!(field(text, "VmHWM"), Some("1234 kB"));
        assert_eq!(field(text, "model name"), Some("AMD: EPYC"));
        assert_eq!(field(text, "model"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_grows_with_what_is_held() {
        forget_peak();
        let before = peak().unwrap();
        let held = vec![1u8; 64 << 20];
        assert!(peak().unwrap() >= before + (32 << 20), "{} bytes", held.len());
    }
}
