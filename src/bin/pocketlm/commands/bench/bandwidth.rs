//! What the device's memory gives, in the same minutes as the tests: the most that decoding can reach.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use pocketlm::Result as Outcome;
use pocketlm::backend::cpu;

use super::row::median;
use crate::args::DeviceChoice;

/// Bytes that are read or copied in all: beyond any cache that counts.
const BYTES: usize = 256 << 20;
/// Bytes of a thread, at least.
const SHARE: usize = 64 << 20;
/// Times that they are, in a measurement.
const PASSES: usize = 4;

/// Measurements so far, in GB/s.
pub(super) struct Bandwidth {
    memory: Memory,
    rates: Vec<f64>,
}

enum Memory {
    /// Read by this many threads.
    Cpu(usize),
    #[cfg(feature = "wgpu")]
    Gpu(DeviceChoice),
}

impl Bandwidth {
    pub(super) fn of_cpu(threads: usize) -> Self {
        Self { memory: Memory::Cpu(threads), rates: Vec::new() }
    }

    #[cfg(feature = "wgpu")]
    pub(super) fn of_gpu(device: DeviceChoice) -> Self {
        Self { memory: Memory::Gpu(device), rates: Vec::new() }
    }

    #[cfg(not(feature = "wgpu"))]
    pub(super) fn of_gpu(_device: DeviceChoice) -> Self {
        Self::of_cpu(1)
    }

    pub(super) fn measure(&mut self) -> Outcome<()> {
        let rate = match &self.memory {
            Memory::Cpu(threads) => read(*threads, (BYTES / threads).max(SHARE))?,
            #[cfg(feature = "wgpu")]
            Memory::Gpu(device) => {
                use pocketlm::backend::wgpu::{Gpu, Options};
                Gpu::open(super::gpu_choice(*device), Options::default())?.copy_rate(BYTES as u64)?
            }
        };
        self.rates.push(rate);
        Ok(())
    }

    /// In GB/s; none where nothing was measured.
    pub(super) fn median(&self) -> Option<f64> {
        (!self.rates.is_empty()).then(|| median(self.rates.clone()))
    }
}

/// The rate at which threads read `bytes` each, all at the same time: the best pass, in GB/s.
fn read(threads: usize, bytes: usize) -> Outcome<f64> {
    let start = Barrier::new(threads);
    let mut shares = (0..threads).map(|_| pages(bytes)).collect::<Outcome<Vec<_>>>()?;
    let pass = |bytes: &mut MmapMut| {
        bytes.fill(1);
        let mut times = [Duration::MAX; PASSES];
        for (pass, time) in times.iter_mut().enumerate() {
            start.wait();
            let begun = Instant::now();
            // Which of both is faster depends on the processor.
            cpu::read(black_box(bytes), pass % 2 == 1);
            *time = begun.elapsed();
        }
        times
    };
    let times: Vec<[Duration; PASSES]> = thread::scope(|scope| {
        let (own, others) = shares.split_at_mut(1);
        let pass = &pass;
        let helpers: Vec<_> = others.iter_mut().map(|share| scope.spawn(move || pass(share))).collect();
        let own = own.first_mut().map(pass);
        let helped = helpers.into_iter().filter_map(|helper| helper.join().ok());
        own.into_iter().chain(helped).collect()
    });
    // A pass takes as long as its slowest thread.
    let passes = (0..PASSES).filter_map(|pass| times.iter().map(|times| times[pass]).max());
    let best = passes.min().unwrap_or(Duration::MAX);
    Ok((times.len() * bytes) as f64 / best.as_secs_f64() / 1e9)
}

/// Memory as weights lie in it: in large pages where the system has them, which are read faster.
fn pages(bytes: usize) -> Outcome<MmapMut> {
    let pages = MmapMut::map_anon(bytes)?;
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::HugePage);
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_measured() {
        assert!(read(2, 1 << 20).unwrap() > 0.0);
        let mut bandwidth = Bandwidth { memory: Memory::Cpu(1), rates: vec![3.0, 1.0] };
        assert_eq!(bandwidth.median(), Some(2.0));
        bandwidth.rates.clear();
        assert_eq!(bandwidth.median(), None);
    }
}
