//! Checking a backend against the twins: one case at a time, through the seven verbs and nothing else.
//!
//! Every argument that is written gets a guard band of canary words behind it, which must survive.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{Backend, Status};
use crate::error::{Error, Kind, Result};
use crate::kernel::{Case, Data};
use crate::plan::{Extent, Inputs, Item, Operand, Plan, Step, Store};

/// Words of canary behind each argument that is a state.
const GUARD: usize = 64;
/// A canary: as f32 a NaN, so that reading it spoils a result.
const CANARY: u32 = 0xffc0_dead;
/// No case takes this long on any device, and on one in software not this, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_WITH_SOFTWARE: Duration = Duration::from_secs(600);

/// Runs `case` on `backend` and compares with the twin.
///
/// # Errors
/// [`Kind::WrongNumbers`] naming the worst element, or whatever the backend's verbs return.
pub fn check(backend: &mut dyn Backend, case: &Case) -> Result<()> {
    let got = run(backend, case)?;
    judge(case, &case.expected(), &got).map_err(|error| error.at(describe(case)))
}

/// The case in a line: `matvec q4_0, one row`.
pub fn describe(case: &Case) -> String {
    let called = format!("{} {}", case.kernel.kernel().name, case.form);
    format!("{}, {}", called.trim_end(), case.name)
}

/// Runs `case` on `backend` and gives the arguments back as they are afterwards.
///
/// # Errors
/// [`Kind::WrongNumbers`] where a guard band was overwritten, or whatever the backend's verbs return.
pub fn run(backend: &mut dyn Backend, case: &Case) -> Result<Vec<Data>> {
    let (store, plan) = stage(case);
    backend.load(&store, &mut |_, _| Ok(()))?;
    let program = backend.prepare(Arc::new(plan))?;
    let items: Vec<_> = store.items().map(|(id, _)| id).collect();
    for (&id, data) in items.iter().zip(&case.args) {
        if let Some(words) = guarded(data) {
            backend.write(id, 0, bytemuck::cast_slice(&words))?;
        }
    }
    let inputs = Inputs { rows: case.call.rows, outputs: 0, kv_len: case.call.kv_len };
    let ticket = backend.submit(&program, 0..1, inputs)?;
    let patience = if backend.caps().software { PATIENCE_WITH_SOFTWARE } else { PATIENCE };
    if backend.poll(ticket, patience)? == Status::Running {
        return Err(Error::new(Kind::DeviceLost, format!("no answer within {patience:?}")).at(describe(case)));
    }
    let mut got = Vec::with_capacity(items.len());
    for (&id, data) in items.iter().zip(&case.args) {
        got.push(match guarded(data) {
            None => data.clone(),
            Some(mut words) => {
                backend.read(id, 0, bytemuck::cast_slice_mut(&mut words))?;
                unguarded(words, data).map_err(|error| error.at(describe(case)))?
            }
        });
    }
    Ok(got)
}

/// Compares what a backend computed with what the twin did: not-a-number first, then each element.
///
/// # Errors
/// [`Kind::WrongNumbers`] naming the worst element.
pub fn judge(case: &Case, expected: &[Data], got: &[Data]) -> Result<()> {
    let kinds = case.kernel.kernel().args;
    for (arg, ((expected, got), kind)) in expected.iter().zip(got).zip(kinds).enumerate() {
        if !kind.is_written() {
            continue;
        }
        let verdict = match (expected, got) {
            (Data::F32(expected), Data::F32(got)) => worst_f32(expected, got, case.tolerance.0),
            (Data::U32(expected), Data::U32(got)) => words(case, expected, got),
            _ => ControlFlow::Break("is of another type".into()),
        };
        if let ControlFlow::Break(what) = verdict {
            return Err(Error::new(Kind::WrongNumbers, format!("argument {arg} {what}")));
        }
    }
    Ok(())
}

/// A written element, as a device has it and as the twin has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// The argument, and the element of it.
    pub place: (usize, usize),
    /// What the device wrote.
    pub got: f64,
    /// What the twin wrote.
    pub expected: f64,
    /// How far they are apart: nothing where they are the same, infinity where words that are no floats differ.
    pub off: f64,
}

/// The element that stands farthest from the twin's; `None` where nothing is written.
pub fn worst(case: &Case, expected: &[Data], got: &[Data]) -> Option<Worst> {
    let kinds = case.kernel.kernel().args;
    let written = expected.iter().zip(got).zip(kinds).enumerate().filter(|(_, (_, kind))| kind.is_written());
    let elements = written.flat_map(|(argument, ((expected, got), _))| {
        let pairs: Vec<(f64, f64, bool)> = match (expected, got) {
            (Data::F32(expected), Data::F32(got)) => expected
                .iter()
                .zip(got)
                .map(|(e, g)| (f64::from(*e), f64::from(*g), e.to_bits() == g.to_bits()))
                .collect(),
            (Data::U32(expected), Data::U32(got)) => {
                let each = expected.iter().zip(got).enumerate();
                each.map(|(at, (&e, &g))| match case.f32_words.contains(&at) {
                    true => (f64::from(f32::from_bits(e)), f64::from(f32::from_bits(g)), e == g),
                    false => (f64::from(e), if e == g { f64::from(g) } else { f64::INFINITY }, e == g),
                })
                .collect()
            }
            _ => Vec::new(),
        };
        pairs.into_iter().enumerate().map(move |(element, (expected, got, is_same))| {
            let off = if is_same { 0.0 } else { (expected - got).abs() };
            let off = if off.is_nan() { f64::INFINITY } else { off };
            Worst { place: (argument, element), got, expected, off }
        })
    });
    elements.reduce(|worst, it| if it.off > worst.off { it } else { worst })
}

fn worst_f32(expected: &[f32], got: &[f32], tolerance: f32) -> ControlFlow<String> {
    if expected.len() != got.len() {
        return ControlFlow::Break(format!("has {} elements where {} belong", got.len(), expected.len()));
    }
    let pairs = || expected.iter().zip(got).enumerate();
    if let Some((i, (expected, got))) =
        pairs().find(|(_, (e, g))| !g.is_finite() && g.to_bits() != e.to_bits())
    {
        return ControlFlow::Break(format!("[{i}] is {got} where {expected} belongs"));
    }
    let off = |(expected, got): (&f32, &f32)| {
        if expected.to_bits() == got.to_bits() { 0.0 } else { (expected - got).abs() }
    };
    let worst = pairs().map(|(i, pair)| (off(pair), i)).max_by(|a, b| a.0.total_cmp(&b.0));
    match worst {
        Some((error, i)) if error > tolerance || error.is_nan() => {
            let wrong = pairs().filter(|(_, pair)| off(*pair) > tolerance).count();
            ControlFlow::Break(format!(
                "[{i}] is {} where {} belongs: off by {error:e}, allowed {tolerance:e}; {wrong} of {} are off",
                got[i],
                expected[i],
                got.len()
            ))
        }
        _ => ControlFlow::Continue(()),
    }
}

/// Words that hold an f32 as such, the others bit by bit.
fn words(case: &Case, expected: &[u32], got: &[u32]) -> ControlFlow<String> {
    let numbers = |words: &[u32]| -> Vec<f32> {
        case.f32_words.iter().filter_map(|&at| words.get(at)).map(|&word| f32::from_bits(word)).collect()
    };
    let rest = |words: &[u32]| -> Vec<u32> {
        let is_number = |at: &usize| case.f32_words.contains(at);
        words.iter().enumerate().map(|(at, &word)| if is_number(&at) { 0 } else { word }).collect()
    };
    first_u32(&rest(expected), &rest(got))?;
    worst_f32(&numbers(expected), &numbers(got), case.tolerance.0)
}

fn first_u32(expected: &[u32], got: &[u32]) -> ControlFlow<String> {
    let differs = expected.iter().zip(got).position(|(expected, got)| expected != got);
    match differs {
        Some(i) => ControlFlow::Break(format!("[{i}] is {:#x} where {:#x} belongs", got[i], expected[i])),
        None if expected.len() != got.len() => ControlFlow::Break("has another length".into()),
        None => ControlFlow::Continue(()),
    }
}

fn stage(case: &Case) -> (Store, Plan) {
    let mut store = Store::default();
    let args = case.args.iter().enumerate().map(|(index, data)| {
        let name = format!("arg{index}");
        Operand::Item(match data {
            Data::Matrix(matrix) => store.add(Item::Matrix(matrix.clone())),
            Data::F32(values) => store.add_state(&name, values.len() + GUARD),
            Data::U32(values) => store.add_state(&name, values.len() + GUARD),
        })
    });
    let step = Step {
        label: case.name.clone(),
        kernel: case.kernel,
        params: case.params.clone(),
        form: case.form,
        extent: Extent::Tokens,
        args: args.collect(),
    };
    let plan = Plan {
        name: "case".into(),
        max_rows: case.call.rows,
        max_outputs: 0,
        result: None,
        temps: Vec::new(),
        steps: vec![step],
    };
    (store, plan)
}

fn guarded(data: &Data) -> Option<Vec<u32>> {
    let mut words = match data {
        Data::Matrix(_) => return None,
        Data::F32(values) => bytemuck::cast_slice(values).to_vec(),
        Data::U32(values) => values.clone(),
    };
    words.resize(words.len() + GUARD, CANARY);
    Some(words)
}

fn unguarded(mut words: Vec<u32>, like: &Data) -> Result<Data> {
    let guard = words.split_off(words.len() - GUARD);
    if let Some(at) = guard.iter().position(|&word| word != CANARY) {
        return Err(Error::new(Kind::WrongNumbers, format!("word {at} behind the argument was overwritten")));
    }
    Ok(match like {
        Data::F32(_) => Data::F32(words.into_iter().map(f32::from_bits).collect()),
        _ => Data::U32(words),
    })
}
