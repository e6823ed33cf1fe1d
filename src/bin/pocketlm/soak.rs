//! `doctor --soak`: hours of bad luck. Sessions begin, stream, are cancelled, saved, suspended and paced, while faults befall
//! the device by chance from a seed that is printed. Whatever happens, an answer is the one that was due, or ends with an error
//! that says what befell; nothing leaks, nothing hangs, no thread stays behind.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pocketlm::backend::fault::{Fault, Faults, Harm};
use pocketlm::base::Seed;
use pocketlm::{
    Device, Engine, EngineOptions, Error, Event, GenerateOptions, Kind, LoadOptions, Model, Pace, Prompt,
    Result, Sampling, SaveOptions, Session, Stream, Suspend, Worker,
};
use serde_json::{Value, json};

use crate::interrupt::Work;
use crate::output;

/// Sessions of an engine, one after the other and a few at a time.
const SESSIONS: usize = 24;
const AT_A_TIME: usize = 3;
/// A passage of a point in so many meets a fault.
const ONE_IN: u64 = 60;
/// What stands still for so long hangs.
const STANDSTILL: Duration = Duration::from_secs(180);
/// Growth of memory from the first half of a run to the second that is no leak, or a quarter: allocators keep what they
/// had.
const SLACK: u64 = 24 << 20;

/// The requests, and their answers on a device without faults.
struct Due {
    prompts: Vec<Prompt>,
    requests: Vec<GenerateOptions>,
    /// By prompt and request.
    tokens: Vec<Vec<u32>>,
}

/// What was done and what befell.
#[derive(Default)]
struct Tally {
    engines: u64,
    sessions: u64,
    tokens: u64,
    recoveries: u64,
    cancelled: u64,
    suspended: u64,
    saved: u64,
    typed: u64,
    faults: BTreeMap<Fault, u64>,
    memory: Vec<u64>,
}

/// An answer under way.
struct Told {
    session: Session,
    stream: Stream,
    which: usize,
}

/// Soaks `devices` for so many seconds with `model`, a file in memory.
///
/// # Errors
/// `WrongNumbers` where an answer was not the one that was due, `Internal` where something leaked or hung.
pub(crate) fn soak(
    seconds: u64,
    seed: u64,
    devices: &[Device],
    model: &'static [u8],
    json: bool,
) -> Result<Value> {
    // What is meant to happen is not worth a warning.
    log::set_max_level(log::LevelFilter::Error);
    let work = Work::begin();
    let end = Instant::now() + Duration::from_secs(seconds);
    let due = Due::of(model)?;
    let mut chance = Seed::new(seed);
    let mut tally = Tally::default();
    let threads = threads();
    let watch = Watch::begin();
    let mut devices_in_turn = devices.iter().cycle();
    while Instant::now() < end {
        work.check()?;
        let Some(&device) = devices_in_turn.next() else { break };
        engine(device, model, &due, &mut chance, &mut tally, &watch)
            .map_err(|error| error.at(format!("engine {} on {device:?}, seed {seed}", tally.engines)))?;
        tally.engines += 1;
        tally.memory.extend(resident());
        if !json && tally.engines.is_power_of_two() {
            output::note(&format!("{} engines, {} faults, all well", tally.engines, tally.count()));
        }
    }
    tally.leaks()?;
    settled(threads)?;
    Ok(tally.report(seed))
}

/// One engine with its share of sessions.
fn engine(
    device: Device,
    model: &'static [u8],
    due: &Due,
    chance: &mut Seed,
    tally: &mut Tally,
    watch: &Watch,
) -> Result<()> {
    let faults = Faults::random(chance.bits(), ONE_IN, &[]);
    let is_cpu = device == Device::Cpu;
    let patience = Some(Duration::from_millis(if is_cpu { 200 } else { 5000 }));
    let options = EngineOptions {
        device,
        exact: true,
        patience,
        faults: Some(faults.clone()),
        ..EngineOptions::default()
    };
    let engine = Engine::new(options);
    let options = LoadOptions { sessions: 2, prefill: 16, ..LoadOptions::default() };
    let outcome = match engine.load_bytes("stories260K", model, &options, |_| Ok(())) {
        // Nothing was promised to anybody yet.
        Err(error) if matches!(error.kind(), Kind::DeviceLost | Kind::OutOfMemory) => {
            tally.typed += 1;
            Ok(())
        }
        Err(error) => Err(error),
        Ok(model) => converse(&engine, &model, due, chance, tally, &faults, watch),
    };
    for (fault, count) in faults.hits() {
        *tally.faults.entry(fault).or_default() += count;
    }
    outcome
}

fn converse(
    engine: &Engine,
    model: &Model,
    due: &Due,
    chance: &mut Seed,
    tally: &mut Tally,
    faults: &Arc<Faults>,
    watch: &Watch,
) -> Result<()> {
    let worker = if chance.below(2) == 0 { Some(Worker::start(engine)?) } else { None };
    let mut told: Vec<Told> = Vec::new();
    let mut begun = 0;
    while begun < SESSIONS || !told.is_empty() {
        while told.len() < AT_A_TIME && begun < SESSIONS {
            let which = chance.below(due.tokens.len() as u64) as usize;
            let mut session = model.session();
            let (prompt, request) = due.request(which);
            let stream = session.generate(prompt, request)?;
            told.push(Told { session, stream, which });
            begun += 1;
        }
        match chance.below(60) {
            0 => {
                told[chance.below(told.len() as u64) as usize].stream.cancel_handle().cancel();
            }
            1 => {
                engine.suspend(Suspend { release: chance.below(3) == 0, ..Suspend::default() });
                tally.suspended += 1;
                thread::sleep(Duration::from_micros(chance.below(3000)));
                engine.resume();
            }
            2 => engine.set_pace(match chance.below(3) {
                0 => Pace::Full,
                1 => Pace::Frame(Duration::from_micros(100 + chance.below(2000))),
                _ => Pace::Background,
            }),
            // Who lets go of a stream cancels.
            3 => {
                told.swap_remove(chance.below(told.len() as u64) as usize);
                tally.cancelled += 1;
            }
            4 => {
                let at = chance.below(told.len() as u64) as usize;
                saved_and_restored(model, &mut told[at], due, chance, tally)?;
            }
            _ => {}
        }
        match &worker {
            Some(_) => thread::sleep(Duration::from_micros(300)),
            // What befell one answer is in its stream.
            None => drop(engine.tick(Duration::from_millis(1))),
        }
        let mut failed = Ok(());
        told.retain_mut(|told| match step(told, due, tally, faults, watch) {
            Ok(ended) => !ended,
            Err(error) => {
                failed = Err(error);
                false
            }
        });
        failed?;
    }
    tally.recoveries += u64::from(model.health().recoveries);
    Ok(())
}

/// The session goes through bytes and on as another, if its answer has not ended; damaged bytes are refused.
fn saved_and_restored(
    model: &Model,
    told: &mut Told,
    due: &Due,
    chance: &mut Seed,
    tally: &mut Tally,
) -> Result<()> {
    let bytes = told.session.to_bytes(&SaveOptions { kv: chance.below(2) == 0 })?;
    let mut damaged = bytes.clone();
    damaged[chance.below(bytes.len() as u64) as usize] ^= 1 << chance.below(8);
    if model.restore_bytes(damaged).is_ok() {
        return Err(Error::internal("a damaged session was restored"));
    }
    let mut session = model.restore_bytes(bytes)?;
    if session.is_unfinished() {
        match session.proceed(due.request(told.which).1) {
            Ok(stream) => (told.session, told.stream) = (session, stream),
            // Its last token was there already.
            Err(error) if error.kind() == Kind::InvalidArgument => return Ok(()),
            Err(error) => return Err(error),
        }
        tally.saved += 1;
    }
    Ok(())
}

/// Hears what there is of an answer: whether it has ended as it should.
fn step(told: &mut Told, due: &Due, tally: &mut Tally, faults: &Faults, watch: &Watch) -> Result<bool> {
    while let Some(event) = told.stream.try_next() {
        watch.alive();
        match event {
            Ok(Event::Finished(finish)) => {
                tally.sessions += 1;
                tally.tokens += finish.tokens.len() as u64;
                tally.cancelled += u64::from(finish.reason.name() == "cancelled");
                let due = &due.tokens[told.which];
                let whole = finish.reason.name() == "cancelled" || finish.tokens.len() == due.len();
                if !whole || !due.starts_with(&finish.tokens) {
                    let what = format!("{:?} where {due:?} was due", finish.tokens);
                    return Err(Error::new(Kind::WrongNumbers, what));
                }
                return Ok(true);
            }
            Ok(_) => {}
            Err(error) => {
                tally.sessions += 1;
                tally.typed += 1;
                let may_be_wrong = faults.hits().keys().any(|fault| fault.harm == Harm::NotANumber);
                return if error.kind() == Kind::WrongNumbers && may_be_wrong {
                    Ok(true)
                } else {
                    Err(error)
                };
            }
        }
    }
    Ok(false)
}

impl Due {
    fn of(model: &'static [u8]) -> Result<Self> {
        let engine =
            Engine::new(EngineOptions { device: Device::Cpu, exact: true, ..EngineOptions::default() });
        let model = engine.load_bytes("stories260K", model, &LoadOptions::default(), |_| Ok(()))?;
        let prompts = ["Once upon a time", "Tom and his dog went to the park. They", "", "The sun was"];
        let prompts: Vec<Prompt> = prompts.iter().map(|text| Prompt::Raw((*text).into())).collect();
        let drawn = |seed| Sampling {
            temperature: Some(1.1),
            top_k: Some(40),
            top_p: Some(0.95),
            seed: Some(seed),
            ..Sampling::default()
        };
        let penalised = Sampling { repeat_penalty: Some(1.2), ..Sampling::default() };
        let samplings = [Sampling::default(), drawn(1), drawn(2), penalised];
        let requests: Vec<GenerateOptions> = samplings
            .into_iter()
            .map(|sampling| GenerateOptions { max_tokens: Some(48), sampling, ..GenerateOptions::default() })
            .collect();
        let mut due = Self { prompts, requests, tokens: Vec::new() };
        for which in 0..due.prompts.len() * due.requests.len() {
            let (prompt, request) = due.request(which);
            let tokens = model.session().generate(prompt, request)?.finish()?.tokens;
            due.tokens.push(tokens);
        }
        Ok(due)
    }

    fn request(&self, which: usize) -> (&Prompt, &GenerateOptions) {
        (&self.prompts[which / self.requests.len()], &self.requests[which % self.requests.len()])
    }
}

impl Tally {
    fn count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Memory at the end is about what it was in the middle.
    fn leaks(&self) -> Result<()> {
        let middle = self.memory.len() / 2;
        // A device that is being closed, in a thread of its own, still has its memory.
        let (before, after) = (median(&self.memory[..middle]), median(&self.memory[middle..]));
        match middle > 4 && after > before + SLACK.max(before / 4) {
            true => {
                let step = self.memory.len().div_ceil(12);
                let mib: Vec<u64> = self.memory.iter().step_by(step).map(|bytes| bytes >> 20).collect();
                Err(Error::internal(format!("memory grew from {before} to {after} bytes: {mib:?} MiB")))
            }
            false => Ok(()),
        }
    }

    fn report(&self, seed: u64) -> Value {
        let faults = self
            .faults
            .iter()
            .map(|(fault, &count)| (format!("{:?} {:?}", fault.point, fault.harm), json!(count)));
        let (first, second) = self.memory.split_at(self.memory.len() / 2);
        json!({
            "seed": seed,
            "engines": self.engines,
            "sessions": self.sessions,
            "tokens": self.tokens,
            "faults": self.count(),
            "by_fault": faults.collect::<serde_json::Map<_, _>>(),
            "recoveries": self.recoveries,
            "suspended": self.suspended,
            "saved": self.saved,
            "cancelled": self.cancelled,
            "typed_errors": self.typed,
            "never_met": Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault))
                .map(|fault| format!("{:?} {:?}", fault.point, fault.harm)).collect::<Vec<_>>(),
            "resident_bytes": { "first_half": median(first), "second_half": median(second) },
        })
    }
}

/// Ends the program where nothing is heard of it: a deadlock cannot tell of itself.
struct Watch {
    heard: Arc<AtomicU64>,
    _stop: mpsc::Sender<()>,
}

impl Watch {
    fn begin() -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let heard = Arc::new(AtomicU64::new(0));
        let hears = heard.clone();
        thread::spawn(move || {
            let mut last = 0;
            while stopped.recv_timeout(STANDSTILL) == Err(RecvTimeoutError::Timeout) {
                let now = hears.load(Ordering::Relaxed);
                if now == last {
                    output::error(&format!("nothing has moved for {STANDSTILL:?}: a deadlock"));
                    std::process::abort();
                }
                last = now;
            }
        });
        Self { heard, _stop: stop }
    }

    fn alive(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }
}

/// As many threads as before, after a moment for those that are ending.
fn settled(before: Option<u64>) -> Result<()> {
    let begun = Instant::now();
    loop {
        // The watch is one more.
        match (before, threads()) {
            (Some(before), Some(now)) if now > before + 1 => {
                if begun.elapsed() > Duration::from_secs(10) {
                    return Err(Error::internal(format!("{now} threads where {before} were")));
                }
                thread::sleep(Duration::from_millis(50));
            }
            _ => return Ok(()),
        }
    }
}

fn median(of: &[u64]) -> u64 {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// Threads of this process, where the system says.
fn threads() -> Option<u64> {
    status("Threads:")
}

/// Bytes of this process in memory, where the system says.
fn resident() -> Option<u64> {
    status("VmRSS:").map(|kib| kib << 10)
}

fn status(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(memory: impl Iterator<Item = u64>) -> Tally {
        Tally { memory: memory.map(|mib| mib << 20).collect(), ..Tally::default() }
    }

    #[test]
    fn a_leak_is_seen_and_noise_is_none() {
        assert!(tally((0..40).map(|i| 100 + 5 * i)).leaks().is_err());
        assert!(tally((0..40).map(|i| 100 + 80 * (i % 3))).leaks().is_ok());
        assert!(tally([20, 90].into_iter()).leaks().is_ok(), "too few to say");
    }
}
