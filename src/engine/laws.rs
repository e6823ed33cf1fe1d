//! Laws of running ahead: however many submissions are under way, the tokens are those of one after the other. On a
//! backend that computes at once and hands out late, and with faults planted in it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::answer::Answer;
use super::event::{Event, Finish, FinishReason, Queue};
use super::flight::Pick;
use super::recover::Made;
use super::runner::{Request, Runner, SessionId};
use crate::backend::cpu::{Cpu, CpuOptions};
use crate::backend::{Backend, Caps, Program, Progress, Status, Ticket};
use crate::base::Seed;
use crate::error::{Error, Kind, Result};
use crate::format::Checkpoint;
use crate::kernel::{KvType, ROW_WORDS};
use crate::model::{Blueprint, CacheOptions, LowerOptions, Phase, Weights, lower};
use crate::plan::{Inputs, ItemId, Plan, Store};
use crate::sample::{Chain, Filter, MinP, RepeatPenalty, Temperature, TopK, TopP};

/// What the device does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It hands out the result before the one that is asked for.
    StaleResult,
    /// It does not feed tokens back.
    StaleRows,
    /// It is lost at this submission.
    Lost(u64),
    /// It hands out no state.
    Unreadable,
    /// It takes no state but rows, page table, outputs.
    Unwritable,
}

/// A device that is asked for so many submissions ahead.
struct Ahead {
    cpu: Cpu,
    caps: Caps,
    fault: Fault,
    rows: ItemId,
    handed_out: Vec<u32>,
    written: Vec<u8>,
}

impl Backend for Ahead {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn load(&mut self, store: &Store, progress: Progress<'_>) -> Result<()> {
        self.cpu.load(store, progress)
    }
    fn prepare(&mut self, plan: Arc<Plan>) -> Result<Program> {
        self.cpu.prepare(plan)
    }
    fn submit(&mut self, program: &Program, steps: Range<usize>, inputs: Inputs) -> Result<Ticket> {
        if self.fault == Fault::StaleRows {
            self.cpu.write(self.rows, 0, &self.written)?;
        }
        let ticket = self.cpu.submit(program, steps, inputs)?;
        match self.fault {
            Fault::Lost(at) if ticket.0 >= at => Err(Error::new(Kind::DeviceLost, "planted")),
            _ => Ok(ticket),
        }
    }
    fn poll(&mut self, ticket: Ticket, wait: Duration) -> Result<Status> {
        let mut status = self.cpu.poll(ticket, wait)?;
        if let (Fault::StaleResult, Status::Finished(result)) = (self.fault, &mut status) {
            std::mem::swap(result, &mut self.handed_out);
            result.resize(4, 0);
        }
        Ok(status)
    }
    fn read(&mut self, state: ItemId, at: usize, out: &mut [u8]) -> Result<()> {
        match self.fault {
            Fault::Unreadable => Err(Error::new(Kind::DeviceLost, "planted")),
            _ => self.cpu.read(state, at, out),
        }
    }
    fn write(&mut self, state: ItemId, at: usize, bytes: &[u8]) -> Result<()> {
        if self.fault == Fault::Unwritable && bytes.len() > 4 * ROW_WORDS * 16 {
            return Err(Error::new(Kind::DeviceLost, "planted"));
        }
        if state == self.rows {
            self.written = bytes.to_vec();
        }
        self.cpu.write(state, at, bytes)
    }
}

fn runner(ahead: usize, fault: Fault, sequences: u32, pages: u32) -> Runner {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stories260k/stories260K-f32.gguf");
    let checkpoint = Checkpoint::open(path).unwrap();
    let blueprint = Blueprint::read(&checkpoint).unwrap();
    let weights = Weights::gather(&checkpoint, &blueprint).unwrap();
    let caches = vec![CacheOptions { kv: KvType::F32, turned: false, sequences, pages }];
    let options = LowerOptions {
        context: 128,
        caches,
        prefill_rows: 16,
        decode_rows: 4,
        outputs: 4,
        top: 64,
        max_matrix_bytes: u64::MAX,
        fused: false,
        calibrates: false,
        int8_activations: false,
    };
    let lowered = lower(&blueprint, &weights, options).unwrap();
    let mut cpu = Cpu::new(CpuOptions { threads: Some(1), exact: true }).unwrap();
    cpu.load(&lowered.store, &mut |_, _| Ok(())).unwrap();
    let mut prepare = |phase: &Phase| cpu.prepare(phase.plan.clone()).unwrap();
    let programs =
        lowered.caches.iter().map(|cache| [prepare(&cache.decode), prepare(&cache.prefill)]).collect();
    let caps = Caps { ahead, ..cpu.caps().clone() };
    let (rows, handed_out) = (lowered.ports.rows, Vec::new());
    let backend = Ahead { cpu, caps, fault, rows, handed_out, written: vec![0; 4 * ROW_WORDS] };
    let made = Made { backend: Box::new(backend), reason: String::new(), lowered, programs };
    Runner::new(made, None, Arc::default(), None)
}

fn greedy() -> Chain {
    Chain::new(Vec::new(), true, 0).unwrap()
}

fn seeded(seed: u64) -> Chain {
    let filters = vec![
        Filter::TopK(TopK { k: 40 }),
        Filter::TopP(TopP { p: 0.95 }),
        Filter::MinP(MinP { p: 0.02 }),
        Filter::Temperature(Temperature { temperature: 1.2 }),
    ];
    Chain::new(filters, false, seed).unwrap()
}

fn request(tokens: &[u32], chain: Chain, max_tokens: u32, ends: &[u32]) -> Request {
    let answer = Answer::new(None, Vec::new());
    let (tokens, ends) = (tokens.to_vec(), ends.to_vec());
    Request {
        tokens,
        prompt_tokens: None,
        chain,
        answer,
        guide: None,
        limit: None,
        drafter: None,
        log_probabilities: None,
        max_tokens: Some(max_tokens),
        ends,
    }
}

/// The end of an answer, where it is there.
fn end(queue: &Queue) -> Option<Result<Finish>> {
    while let Some(event) = queue.pop() {
        match event {
            Ok(Event::Finished(finish)) => return Some(Ok(finish)),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

/// Ticks until an answer has ended, `after` each.
fn run(runner: &mut Runner, queue: &Queue, mut after: impl FnMut(&mut Runner)) -> Result<Finish> {
    loop {
        let outcome = runner.tick(None, true);
        if let Some(end) = end(queue) {
            return end;
        }
        outcome?;
        after(runner);
    }
}

fn tell(
    runner: &mut Runner,
    id: SessionId,
    tokens: &[u32],
    chain: Chain,
    max: u32,
    ends: &[u32],
) -> Vec<u32> {
    let queue = runner.begin(id, request(tokens, chain, max, ends)).unwrap();
    run(runner, &queue, |_| ()).unwrap().tokens
}

const STORY: &[u32] = &[1, 403, 407, 261, 378];

/// An answer that stops at its 12th token, another to the same and more in the same session, and how deep it went.
fn stopped_and_continued(ahead: usize, fault: Fault, chain: &Chain) -> (Vec<u32>, Vec<u32>, usize) {
    let mut runner = runner(ahead, fault, 1, 4);
    let id = runner.open();
    let whole = tell(&mut runner, id, STORY, chain.clone(), 40, &[]);
    let end = whole[11];
    let mut deepest = 0;
    let queue = runner.begin(id, request(STORY, chain.clone(), 40, &[end])).unwrap();
    let stopped = run(&mut runner, &queue, |runner| deepest = deepest.max(runner.flights.len())).unwrap();
    let mut past = [STORY, &stopped.tokens].concat();
    past.extend([300, 301, 302]);
    let continued = tell(&mut runner, id, &past, chain.clone(), 30, &[]);
    (whole, [stopped.tokens, continued].concat(), deepest)
}

#[test]
fn running_ahead_is_step_by_step() {
    for chain in [greedy(), seeded(7), seeded(8)] {
        let (whole, parts, deepest) = stopped_and_continued(1, Fault::None, &chain);
        assert_eq!((whole.len(), deepest), (40, 0));
        assert!(parts.len() < 70, "it stops");
        for ahead in [2, 3, 4, 7] {
            let got = stopped_and_continued(ahead, Fault::None, &chain);
            // One has landed when the others are counted.
            assert_eq!(got, (whole.clone(), parts.clone(), ahead - 1), "{ahead} ahead, {chain}");
        }
    }
}

#[test]
fn planted_faults_are_seen() {
    for chain in [greedy(), seeded(7)] {
        let (whole, parts, _) = stopped_and_continued(1, Fault::None, &chain);
        for fault in [Fault::StaleResult, Fault::StaleRows] {
            let got = std::panic::catch_unwind(|| stopped_and_continued(3, fault, &chain));
            assert!(got.is_err() || got.is_ok_and(|got| got.0 != whole || got.1 != parts), "{fault:?}");
        }
    }
}

#[test]
fn surplus_that_is_not_discarded_is_seen() {
    let told = |keeps: bool| {
        let mut runner = runner(4, Fault::None, 1, 4);
        let id = runner.open();
        let whole = tell(&mut runner, id, STORY, greedy(), 40, &[]);
        let queue = runner.begin(id, request(STORY, greedy(), 40, &[whole[11]])).unwrap();
        let mut surplus = VecDeque::new();
        let mut fed = Vec::<(SessionId, Pick)>::new();
        let stopped = loop {
            if keeps {
                (surplus, fed) = (runner.flights.clone(), runner.fed.clone());
            }
            runner.tick(None, true).unwrap();
            if let Some(end) = end(&queue) {
                break end.unwrap();
            }
        };
        let past = [STORY, &stopped.tokens, &[300, 301]].concat();
        let queue = runner.begin(id, request(&past, greedy(), 30, &[])).unwrap();
        if keeps {
            surplus.pop_front();
            (runner.flights, runner.fed) = (surplus, fed);
        }
        run(&mut runner, &queue, |_| ()).map(|finish| finish.tokens)
    };
    let due = told(false).unwrap();
    assert!(told(true).map_or(true, |tokens| tokens != due));
}

#[test]
fn tokens_land_one_at_a_time() {
    let mut runner = runner(4, Fault::None, 1, 4);
    let id = runner.open();
    let queue = runner.begin(id, request(STORY, greedy(), 20, &[])).unwrap();
    for count in 1..=20 {
        assert_eq!(runner.tick(None, true).unwrap().rows, if count == 1 { STORY.len() as u32 } else { 1 });
        assert_eq!(runner.session(id).unwrap().history.len(), STORY.len() + count);
    }
    assert_eq!(end(&queue).unwrap().unwrap().reason, FinishReason::Length);
    assert!(runner.flights.is_empty(), "no token beyond the last was asked for");
}

#[test]
fn a_frame_leaves_no_work_that_does_not_fit() {
    let mut runner = runner(4, Fault::None, 1, 4);
    let id = runner.open();
    let queue = runner.begin(id, request(STORY, greedy(), 60, &[])).unwrap();
    while end(&queue).is_none() {
        runner.tick(Some(Duration::ZERO), false).unwrap();
        assert!(runner.flights.is_empty());
    }
}

/// Sessions that begin, are cancelled and begin again as chance has it, with fewer seats than sessions and fewer pages
/// than seats could fill.
#[test]
fn any_order_of_events_tells_the_same_stories() {
    let mut seed = Seed::new(31);
    let prompts: [&[u32]; 4] =
        [STORY, &[1, 410, 300], &[1], &[1, 403, 407, 261, 378, 403, 407, 261, 378, 299, 300]];
    let penalty = Filter::RepeatPenalty(RepeatPenalty { penalty: 1.2, last: 20 });
    let penalised = Chain::new(vec![penalty], true, 0).unwrap();
    let chains = [greedy(), seeded(1), seeded(2), penalised];
    let alone: Vec<Vec<u32>> = prompts
        .iter()
        .zip(&chains)
        .map(|(prompt, chain)| {
            let mut runner = runner(1, Fault::None, 1, 4);
            let id = runner.open();
            tell(&mut runner, id, prompt, chain.clone(), 90, &[])
        })
        .collect();
    for ahead in [1, 2, 3, 5] {
        let mut runner = runner(ahead, Fault::None, 3, 9);
        let ids = prompts.map(|_| runner.open());
        let mut told: [Vec<u32>; 4] = Default::default();
        let mut queues: [Option<Arc<Queue>>; 4] = [const { None }; 4];
        let (mut together, mut deepest) = (0, 0);
        for _ in 0..1500 {
            let who = seed.below(4) as usize;
            match seed.below(8) {
                0 if queues[who].is_none() && told[who].len() < 90 => {
                    let past = [prompts[who], &told[who]].concat();
                    // What a seeded chain draws depends on where the answer began.
                    let is_seeded = chains[who].sees() != crate::sample::Sees::Best;
                    let past = if is_seeded { prompts[who].to_vec() } else { past };
                    let max = 90 - (past.len() - prompts[who].len()) as u32;
                    let max = 1 + seed.below(max.into()) as u32;
                    queues[who] =
                        Some(runner.begin(ids[who], request(&past, chains[who].clone(), max, &[])).unwrap());
                }
                1 => {
                    if let Some(queue) = &queues[who] {
                        queue.cancel();
                    }
                }
                2 => {
                    runner.tick(Some(Duration::from_micros(seed.below(400))), false).unwrap();
                }
                _ => {
                    runner.tick(None, true).unwrap();
                }
            }
            let ahead = runner.flights.iter().filter(|flight| flight.is_whole()).count();
            (together, deepest) = (together.max(runner.fed.len()), deepest.max(ahead));
            for who in 0..4 {
                if let Some(finish) = queues[who].as_ref().and_then(|queue| end(queue)) {
                    let finish = finish.unwrap();
                    queues[who] = None;
                    told[who] = [&finish.prompt_tokens[prompts[who].len()..], &finish.tokens].concat();
                    assert_eq!(told[who], alone[who][..told[who].len()], "session {who}, {ahead} ahead");
                    if told[who].len() >= 80 || chains[who].sees() != crate::sample::Sees::Best {
                        told[who].clear();
                    }
                }
            }
        }
        assert_eq!((together, deepest), (3, ahead - 1), "as many as have seats, as deep as can be");
    }
}

#[test]
fn a_lost_device_costs_a_save_keys_and_values_and_no_history() {
    let identity = [[1; 32]];
    let told = |saves: Fault, restores: Fault| {
        let mut from = runner(3, saves, 1, 4);
        let id = from.open();
        let whole = tell(&mut from, id, STORY, greedy(), 40, &[]);
        let kept = from.keep(id, true, &identity).unwrap();
        assert_eq!(kept.history, [STORY, &whole].concat());
        let has_kv = kept.kv.is_some();
        let mut to = runner(3, restores, 1, 4);
        let id = to.put_back(kept, &identity).unwrap();
        let computed = to.session(id).unwrap().computed;
        let past = to.session(id).unwrap().history.clone();
        (has_kv, computed, tell(&mut to, id, &past, greedy(), 20, &[]))
    };
    let (has_kv, computed, tokens) = told(Fault::None, Fault::None);
    assert_eq!((has_kv, computed), (true, 32));
    assert_eq!(told(Fault::Unreadable, Fault::None), (false, 0, tokens.clone()));
    assert_eq!(told(Fault::None, Fault::Unwritable), (true, 0, tokens));
}

#[test]
fn a_device_lost_in_flight_ends_all_who_compute_on_it() {
    let mut runner = runner(3, Fault::Lost(9), 2, 8);
    let ids = [runner.open(), runner.open()];
    let queues = ids.map(|id| runner.begin(id, request(STORY, greedy(), 40, &[])).unwrap());
    let error = loop {
        if let Err(error) = runner.tick(None, true) {
            break error;
        }
    };
    assert_eq!(error.kind(), Kind::DeviceLost);
    for (id, queue) in ids.into_iter().zip(queues) {
        assert_eq!(end(&queue).unwrap().unwrap_err().kind(), Kind::DeviceLost);
        assert_eq!(runner.session(id).unwrap().computed, 0);
    }
    assert!(runner.flights.is_empty() && runner.fed.is_empty());
    assert_eq!(runner.tick(None, true).unwrap().under_way, 0);
}
