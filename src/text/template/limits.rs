//! What a template may cost. minijinja counts instructions; here is what each may allocate, print and walk, since
//! a template comes with a file and may double a text forty times in forty instructions.
//!
//! Every value that a template makes passes [`admit`] once, every operation on two values [`operands`]; both are
//! called by instructions that `compile` puts in.

use std::fmt::{self, Write};

use minijinja::value::{Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};

use super::{json, python};

/// The work of one rendering: bytes of text made or compared, and [`NODE`] for each value walked. Some seconds at most.
const WORK: u64 = 512 << 20;

/// What walking one value in a container counts for, which is more than the memory that holds it.
const NODE: u64 = 96;

/// The deepest nesting of values. Dropping, comparing and printing them recurse.
const DEPTH: usize = 64;

/// The instructions of one rendering.
const FUEL: u64 = 8_000_000;

/// Filters whose work grows faster than their input.
const SORTS: &[&str] = &["sort", "unique", "groupby", "dictsort", "min", "max", "sum"];

/// Filters that look at no item, or at one.
const GLANCES: &[&str] = &["length", "count", "first", "last", "default", "d"];

/// The work that is left.
pub(super) struct Budget(u64);

impl Budget {
    pub(super) fn of<'a>(state: &'a mut State) -> &'a mut Self {
        state.get_or_insert_extension(Self(WORK))
    }

    fn spend(&mut self, work: u64) -> Result<(), Error> {
        self.0 = self.0.checked_sub(work).ok_or_else(exhausted)?;
        Ok(())
    }

    /// Walks a container to its leaves; `texts` says whether the bytes in it count.
    fn walk(&mut self, value: &Value, texts: bool, depth: usize) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "values are nested too deeply"));
        }
        self.spend(NODE)?;
        match value.kind() {
            ValueKind::String if texts || depth == 0 => self.spend(length(value)),
            ValueKind::Seq | ValueKind::Iterable => {
                value.try_iter()?.try_for_each(|item| self.walk(&item, texts, depth + 1))
            }
            ValueKind::Map => value.try_iter()?.try_for_each(|key| {
                self.walk(&key, texts, depth + 1)?;
                self.walk(&value.get_item(&key)?, texts, depth + 1)
            }),
            _ => Ok(()),
        }
    }

    /// Prints into `out` what is affordable.
    fn print(&mut self, out: &mut dyn Write, values: &[&Value]) -> Result<(), Error> {
        for value in values {
            self.walk(value, false, 0)?;
        }
        self.meter(out, |out| Ok(values.iter().try_for_each(|value| write!(out, "{value}"))?))
    }

    /// Writes what is affordable.
    pub(super) fn meter(
        &mut self,
        out: &mut dyn Write,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut meter = Meter { out, budget: self };
        write(&mut meter)
            .map_err(|error| if error.kind() == ErrorKind::WriteFailure { exhausted() } else { error })
    }

    /// The length of the value in print, if affordable.
    fn printed(&mut self, value: &Value) -> Result<u64, Error> {
        if value.kind() == ValueKind::String {
            return Ok(length(value));
        }
        let before = self.0;
        self.print(&mut Nowhere, &[value])?;
        Ok(before - self.0)
    }
}

fn exhausted() -> Error {
    Error::new(ErrorKind::OutOfFuel, "the template makes more text than any prompt needs")
}

fn length(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.len() as u64)
}

/// Counts what passes to `out`.
struct Meter<'a> {
    out: &'a mut dyn Write,
    budget: &'a mut Budget,
}

impl Write for Meter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.budget.spend(text.len() as u64).map_err(|_| fmt::Error)?;
        self.out.write_str(text)
    }
}

struct Nowhere;

impl Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

/// Names of the functions here. No template can define or shadow them, for none is an identifier.
pub(super) mod name {
    pub(in super::super) const ADMIT: &str = "(admit)";
    pub(in super::super) const STORE: &str = "(store)";
    pub(in super::super) const OPERANDS: &str = "(operands)";
    pub(in super::super) const FACTORS: &str = "(factors)";
    pub(in super::super) const CONCAT: &str = "(concat)";
    pub(in super::super) const FILTER: &str = "(filter)";
    pub(in super::super) const TEST: &str = "(test)";
    pub(in super::super) const SLICED: &str = "(sliced)";
    pub(in super::super) const ATTRIBUTE: &str = "(attribute)";
    /// The number 1.
    pub(in super::super) const ONE: &str = "pocketlm_one";
}

/// Puts the limits in place.
pub(super) fn install(environment: &mut Environment) {
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(print);
    environment.set_unknown_method_callback(method);
    environment.add_global(name::ONE, 1);
    environment.add_function(name::ADMIT, admit);
    environment.add_function(name::STORE, store);
    environment.add_function(name::OPERANDS, operands);
    environment.add_function(name::FACTORS, factors);
    environment.add_function(name::CONCAT, concat);
    environment.add_function(name::FILTER, filter);
    environment.add_function(name::TEST, test);
    environment.add_function(name::ATTRIBUTE, attribute);
    environment.add_function(name::SLICED, sliced);
    environment.add_filter("tojson", json::tojson);
    environment.remove_filter("pprint");
}

/// The formatter: prints into the output or a captured block.
fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_undefined() { Ok(()) } else { Budget::of(state).print(out, &[value]) }
}

/// A value that was just made, with its iterator run where it has one: iterators over iterators nest without end.
fn admit(state: &mut State, value: Value) -> Result<Value, Error> {
    Budget::of(state).walk(&value, false, 0)?;
    if value.kind() == ValueKind::Iterable {
        return Ok(value.try_iter()?.collect());
    }
    Ok(value)
}

/// A value that a namespace may hold: one that holds a namespace or a loop would make a ring or an endless chain.
fn store(state: &mut State, value: Value) -> Result<Value, Error> {
    Budget::of(state).walk(&value, false, 0)?;
    refuse_state(&value)?;
    Ok(value)
}

fn refuse_state(value: &Value) -> Result<(), Error> {
    let Some(object) = value.as_object() else { return Ok(()) };
    if ["::Namespace", "::Loop"].iter().any(|kind| object.type_name().ends_with(kind)) {
        return Err(Error::new(ErrorKind::InvalidOperation, "a namespace can hold no namespace and no loop"));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| refuse_state(&item)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| refuse_state(&value.get_item(&key)?)),
        _ => Ok(()),
    }
}

/// Two values to be compared, searched or added, in the order in which they are unpacked onto the stack.
fn operands(state: &mut State, left: Value, right: Value) -> Result<Value, Error> {
    let budget = Budget::of(state);
    budget.walk(&left, true, 0)?;
    budget.walk(&right, true, 0)?;
    Ok(Value::from(vec![right, left]))
}

/// Two values to be multiplied, likewise.
fn factors(state: &mut State, left: Value, right: Value) -> Result<Value, Error> {
    let budget = Budget::of(state);
    for (repeated, times) in [(&left, &right), (&right, &left)] {
        let unit = match repeated.kind() {
            ValueKind::String => length(repeated),
            ValueKind::Seq | ValueKind::Iterable => repeated.len().unwrap_or(1) as u64 * NODE,
            _ => continue,
        };
        budget.spend(unit.saturating_mul(times.as_usize().unwrap_or(0) as u64))?;
    }
    Ok(Value::from(vec![right, left]))
}

/// What is to be sliced, in the order in which it is unpacked onto the stack. A slice backwards is made here, as Python
/// makes it: minijinja's panics where nothing is to be sliced, and knows no end at the first item.
fn sliced(state: &mut State, value: Value, start: Value, stop: Value, step: Value) -> Result<Value, Error> {
    let back = i64::try_from(step.clone()).ok().filter(|&step| step < 0);
    let (Some(back), ValueKind::String | ValueKind::Seq | ValueKind::Iterable) = (back, value.kind()) else {
        return Ok(Value::from(vec![step, stop, start, value]));
    };
    Budget::of(state).walk(&value, true, 0)?;
    let whole = |bound: &Value| {
        if bound.is_none() { Ok(None) } else { i64::try_from(bound.clone()).map(Some) }
    };
    let (start, stop) = (whole(&start)?, whole(&stop)?);
    let made = match value.as_str() {
        Some(text) => {
            let chars: Vec<char> = text.chars().collect();
            Value::from(backwards(chars.len(), start, stop, back).map(|at| chars[at]).collect::<String>())
        }
        None => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let taken = backwards(items.len(), start, stop, back).map(|at| items[at].clone());
            let taken: Vec<Value> = taken.collect();
            if value.is_tuple() { Value::from(Tuple::from(taken)) } else { Value::from(taken) }
        }
    };
    let all = Value::from(());
    Ok(Value::from(vec![all.clone(), all.clone(), all, made]))
}

/// The places that `[start:stop:step]` takes of `len`, for a `step` below 0.
fn backwards(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let len = len as i128;
    let bound = |bound: i64| {
        let bound = i128::from(bound);
        (if bound < 0 { bound + len } else { bound }).clamp(-1, len - 1)
    };
    let (start, stop) = (start.map_or(len - 1, bound), stop.map_or(-1, bound));
    let next = move |at: &i128| Some(at + i128::from(step));
    std::iter::successors(Some(start), next).take_while(move |&at| at > stop).map(|at| at as usize)
}

/// `left ~ right`.
fn concat(state: &mut State, left: Value, right: Value) -> Result<String, Error> {
    let mut text = String::new();
    Budget::of(state).print(&mut text, &[&left, &right])?;
    Ok(text)
}

/// Applies a filter; its name is the last argument.
fn filter(state: &mut State, Rest(args): Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let mut args: Vec<Value> = args.into_iter().map(ValueOrKwargs::into_value).collect();
    let name = args.pop();
    let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
    afford(state, name, &args)?;
    let value = state.apply_filter(name, &args)?;
    admit(state, value)
}

/// Performs a test; its name is the last argument.
fn test(state: &mut State, Rest(args): Rest<ValueOrKwargs>) -> Result<bool, Error> {
    let mut args: Vec<Value> = args.into_iter().map(ValueOrKwargs::into_value).collect();
    let name = args.pop();
    let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
    for value in &args {
        Budget::of(state).walk(value, true, 0)?;
    }
    state.perform_test(name, &args)
}

/// Python's methods on text, lists and maps.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let all: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
    let joins = name == "join" && value.kind() == ValueKind::String;
    match (joins, args.first()) {
        (true, Some(items)) => afford(state, name, &[items.clone(), value.clone()])?,
        _ => afford(state, name, &all)?,
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Spends what a filter or method reads and, where it makes more than it reads, what it makes.
fn afford(state: &mut State, name: &str, args: &[Value]) -> Result<(), Error> {
    if GLANCES.contains(&name) {
        return Ok(());
    }
    let budget = Budget::of(state);
    for value in args {
        budget.walk(value, SORTS.contains(&name), 0)?;
    }
    let [value, rest @ ..] = args else { return Ok(()) };
    let argument = |i: usize| rest.get(i).map_or(0, length);
    let number = |i: usize| rest.get(i).and_then(Value::as_usize).unwrap_or(0) as u64;
    let more = match name {
        _ if SORTS.contains(&name) => {
            let before = budget.0;
            budget.walk(value, true, 0)?;
            // More comparisons of each value than there are in sorting a million.
            (before - budget.0).saturating_mul(20)
        }
        "replace" => {
            let (text, old) = (value.as_str().unwrap_or_default(), rest.first().and_then(Value::as_str));
            let count = text.matches(old.unwrap_or_default()).count() as u64;
            count.saturating_mul(argument(1))
        }
        "join" => {
            let mut items = 0u64;
            for item in value.try_iter()? {
                items += budget.printed(&item)? + argument(0);
            }
            items
        }
        "indent" => {
            let lines = value.as_str().map_or(0, |text| text.split('\n').count()) as u64;
            lines.saturating_mul(number(0).max(argument(0)).max(keyword(rest, "width")))
        }
        "slice" | "batch" => number(0).saturating_mul(NODE),
        "trim" | "strip" | "lstrip" | "rstrip" => length(value).saturating_mul(argument(0)) / 8,
        "string" => budget.printed(value)?,
        "format" => formatted(budget, value, rest)?,
        _ => 0,
    };
    Budget::of(state).spend(more)
}

fn keyword(args: &[Value], key: &str) -> u64 {
    let last = args.last().filter(|last| last.is_kwargs());
    last.and_then(|last| last.get_attr(key).ok()).and_then(|value| value.as_usize()).unwrap_or(0) as u64
}

/// The most that a format can make: each field prints the longest argument, padded to the widest width.
fn formatted(budget: &mut Budget, format: &Value, args: &[Value]) -> Result<u64, Error> {
    let format = format.as_str().unwrap_or_default();
    let fields = format.chars().filter(|c| ['%', '{'].contains(c)).count() as u64;
    let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let mut width = numbers.map(|digits| digits.parse().unwrap_or(u64::MAX)).max().unwrap_or(0);
    for value in args {
        width = width.max(budget.printed(value)?).max(value.as_usize().unwrap_or(0) as u64);
    }
    Ok(fields.saturating_mul(width))
}

/// See [`python::attribute`].
fn attribute(value: Value, name: String) -> Result<Value, Error> {
    python::attribute(&value, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_go_backwards_as_in_python() {
        let of = |len, start, stop, step| backwards(len, start, stop, step).collect::<Vec<_>>();
        assert_eq!(of(4, None, None, -1), [3, 2, 1, 0]);
        assert_eq!(of(4, None, Some(0), -1), [3, 2, 1]);
        assert_eq!(of(4, Some(2), Some(-5), -2), [2, 0]);
        assert_eq!(of(4, Some(9), Some(1), -1), [3, 2]);
        assert_eq!(of(4, Some(-2), None, -1), [2, 1, 0]);
        assert!(of(4, Some(0), Some(3), -1).is_empty());
        for bound in [None, Some(0), Some(-1), Some(i64::MIN), Some(i64::MAX)] {
            assert!(of(0, bound, bound, -1).is_empty());
            assert!(of(3, bound, None, i64::MIN).len() <= 1);
        }
    }
}
