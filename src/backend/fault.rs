//! Faults on cue: a backend that is lost, has no memory, hangs or computes nonsense when it is told to. What the engine promises
//! for such a day is proven with it, without waiting for the day.
//!
//! [`Faulty`] stands before a backend and befalls its verbs. Where a harm can be done to the device itself it is
//! ([`Backend::harm`]): a GPU is destroyed, a submission is dropped by the queue, so that what is met is what a driver would
//! have caused. Elsewhere the verb fails as if.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Backend, Caps, Program, Progress, Status, Ticket};
use crate::base::Seed;
use crate::error::{Error, Kind, Result};
use crate::plan::{Inputs, Item, ItemId, Plan, Store};

/// Where a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// While a device is opened.
    Open,
    /// Before weights are loaded.
    Load,
    /// While weights are on their way.
    Upload,
    /// While a plan is made ready.
    Prepare,
    /// While a submission is made.
    Submit,
    /// While a submission is waited for.
    Wait,
    /// While a state is read.
    Read,
    /// While a state is written.
    Write,
}

/// What befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// The device is gone.
    Lost,
    /// There is no memory for it.
    OutOfMemory,
    /// The device does not answer any more.
    Hang,
    /// The submission is said to have finished and was never computed.
    Dropped,
    /// It takes long.
    Slow,
    /// A key in the cache becomes NaN, as if a kernel had written it.
    NotANumber,
    /// The code itself fails. Never by chance.
    Panic,
}

/// A harm at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub point: Point,
    /// What.
    pub harm: Harm,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: &[Self] = &{
        use Harm::{Dropped, Hang, Lost, NotANumber, OutOfMemory, Slow};
        use Point::{Load, Open, Prepare, Read, Submit, Upload, Wait, Write};
        [
            Self::new(Open, Lost),
            Self::new(Open, OutOfMemory),
            Self::new(Load, Lost),
            Self::new(Load, OutOfMemory),
            Self::new(Upload, Lost),
            Self::new(Upload, OutOfMemory),
            Self::new(Prepare, Lost),
            Self::new(Prepare, OutOfMemory),
            Self::new(Submit, Lost),
            Self::new(Submit, OutOfMemory),
            Self::new(Submit, Dropped),
            Self::new(Submit, NotANumber),
            Self::new(Wait, Lost),
            Self::new(Wait, Hang),
            Self::new(Wait, Slow),
            Self::new(Read, Lost),
            Self::new(Write, Lost),
            Self::new(Write, OutOfMemory),
        ]
    };

    /// A harm at a point.
    pub const fn new(point: Point, harm: Harm) -> Self {
        Self { point, harm }
    }
}

/// How long a slow submission is late.
const LATE: Duration = Duration::from_millis(20);
/// Words of a cache that become NaN: enough for a position of any model.
const POISON: usize = 16;

/// Which faults come, and which have come. Shared by all devices that an engine opens one after the other.
#[derive(Debug)]
pub struct Faults(Mutex<Book>);

#[derive(Debug)]
struct Book {
    seed: Seed,
    /// A passage of a point in so many meets a fault.
    one_in: u64,
    /// Faults that are left out.
    without: Vec<Fault>,
    /// Faults at the n-th passage of their point from now on, and from there on at each where they stay.
    planned: Vec<(Fault, u64, bool)>,
    hits: BTreeMap<Fault, u64>,
    is_calm: bool,
}

impl Faults {
    /// By chance: one passage of a point in `one_in` meets one of its faults, those of `without` left out.
    pub fn random(seed: u64, one_in: u64, without: &[Fault]) -> Arc<Self> {
        Self::of(Book { one_in, without: without.to_vec(), ..Book::quiet(seed) })
    }

    /// Each fault at the n-th passage of its point, 0 the first.
    pub fn planned(faults: &[(Fault, u64)]) -> Arc<Self> {
        let planned = faults.iter().map(|&(fault, passage)| (fault, passage, false)).collect();
        Self::of(Book { planned, ..Book::quiet(0) })
    }

    /// The same, and another at every passage of its point from the n-th on: a device that does not come back.
    pub fn lasting(faults: &[(Fault, u64)], lasting: Fault, from: u64) -> Arc<Self> {
        let planned = faults.iter().map(|&(fault, passage)| (fault, passage, false));
        Self::of(Book { planned: planned.chain([(lasting, from, true)]).collect(), ..Book::quiet(0) })
    }

    /// How often each fault has come.
    pub fn hits(&self) -> BTreeMap<Fault, u64> {
        self.book().hits.clone()
    }

    /// Nothing befalls any more, or everything again.
    pub fn calm(&self, is_calm: bool) {
        self.book().is_calm = is_calm;
    }

    /// What befalls at this passage of `point`; harms that cannot be done here are not meant.
    pub(crate) fn at(&self, point: Point, can: impl Fn(Harm) -> bool) -> Option<Harm> {
        let mut book = self.book();
        if book.is_calm {
            return None;
        }
        let harm = book.planned_at(point).or_else(|| book.chance_at(point)).filter(|&harm| can(harm))?;
        *book.hits.entry(Fault::new(point, harm)).or_default() += 1;
        Some(harm)
    }

    /// A device that is opened: an error where that fails.
    pub(crate) fn open(&self) -> Result<()> {
        self.at(Point::Open, |_| true).map_or(Ok(()), |harm| Err(error(harm, Point::Open)))
    }

    fn of(book: Book) -> Arc<Self> {
        Arc::new(Self(Mutex::new(book)))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn quiet(seed: u64) -> Self {
        let seed = Seed::new(seed);
        Self {
            seed,
            one_in: 0,
            without: Vec::new(),
            planned: Vec::new(),
            hits: BTreeMap::new(),
            is_calm: false,
        }
    }

    fn planned_at(&mut self, point: Point) -> Option<Harm> {
        let mut due = None;
        for (fault, passages, _) in self.planned.iter_mut().filter(|(fault, ..)| fault.point == point) {
            match passages {
                0 => due = due.or(Some(*fault)),
                passages => *passages -= 1,
            }
        }
        self.planned.retain(|&(fault, _, stays)| stays || Some(fault) != due);
        due.map(|fault| fault.harm)
    }

    fn chance_at(&mut self, point: Point) -> Option<Harm> {
        if self.one_in == 0 || self.seed.below(self.one_in) != 0 {
            return None;
        }
        let faults: Vec<Fault> = Fault::ALL
            .iter()
            .filter(|fault| fault.point == point && !self.without.contains(fault))
            .copied()
            .collect();
        (!faults.is_empty()).then(|| faults[self.seed.below(faults.len() as u64) as usize].harm)
    }
}

/// A backend with faults.
pub struct Faulty {
    inner: Box<dyn Backend>,
    faults: Arc<Faults>,
    /// Why no verb works any more.
    gone: Option<Harm>,
    /// The first keys of the first layer.
    keys: Option<ItemId>,
}

impl Faulty {
    /// `inner` with `faults`.
    pub fn new(inner: Box<dyn Backend>, faults: Arc<Faults>) -> Self {
        Self { inner, faults, gone: None, keys: None }
    }

    /// Passes a point: an error where the device is gone, or is harmed there so that nothing works any more; otherwise what
    /// else befalls.
    fn pass(&mut self, point: Point) -> Result<Option<Harm>> {
        if let Some(harm) = self.gone {
            return Err(error(harm, point));
        }
        // What only a device itself can do it has to be able to; and a poisoned cache needs one.
        let has_keys = self.keys.is_some();
        let inner = &mut self.inner;
        let harm = self.faults.at(point, |harm| match harm {
            Harm::NotANumber => has_keys,
            Harm::Dropped => inner.caps().ahead > 1,
            _ => true,
        });
        match harm {
            // A real device is destroyed, and meets it in its own way; another is lost by word alone.
            Some(Harm::Lost) if inner.harm(Harm::Lost) => {}
            Some(Harm::Lost) => {
                self.gone = harm;
                return Err(error(Harm::Lost, point));
            }
            Some(Harm::OutOfMemory) => return Err(error(Harm::OutOfMemory, point)),
            Some(Harm::Dropped) => {
                inner.harm(Harm::Dropped);
            }
            Some(Harm::Hang) => self.gone = harm,
            Some(Harm::Panic) => panic!("a fault that was asked for"),
            _ => {}
        }
        Ok(harm)
    }
}

impl Backend for Faulty {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn expect(&mut self, plans: &[Arc<Plan>]) {
        self.inner.expect(plans);
    }

    fn load(&mut self, store: &Store, progress: Progress<'_>) -> Result<()> {
        self.pass(Point::Load)?;
        let is_keys = |item: &Item| matches!(item, Item::State { name, words } if name.ends_with(".keys") && *words >= POISON);
        self.keys = store.items().find(|(_, item)| is_keys(item)).map(|(id, _)| id);
        let faults = self.faults.clone();
        let (mut chunks, mut befell) = (0, None);
        let outcome = self.inner.load(store, &mut |done, total| {
            chunks += 1;
            // A load is one passage, at its second chunk.
            befell = if chunks == 2 { faults.at(Point::Upload, |_| true) } else { None };
            befell.map_or_else(|| progress(done, total), |harm| Err(error(harm, Point::Upload)))
        });
        self.gone = befell.filter(|&harm| harm == Harm::Lost);
        outcome
    }

    fn prepare(&mut self, plan: Arc<Plan>) -> Result<Program> {
        self.pass(Point::Prepare)?;
        self.inner.prepare(plan)
    }

    fn submit(&mut self, program: &Program, steps: Range<usize>, inputs: Inputs) -> Result<Ticket> {
        if let (Some(Harm::NotANumber), Some(keys)) = (self.pass(Point::Submit)?, self.keys) {
            self.inner.write(keys, 0, bytemuck::cast_slice(&[u32::MAX; POISON]))?;
        }
        self.inner.submit(program, steps, inputs)
    }

    fn poll(&mut self, ticket: Ticket, wait: Duration) -> Result<Status> {
        if self.gone == Some(Harm::Hang) {
            thread::sleep(wait);
            return Ok(Status::Running);
        }
        if self.pass(Point::Wait)? == Some(Harm::Slow) {
            thread::sleep(LATE.min(wait));
        }
        if self.gone == Some(Harm::Hang) { Ok(Status::Running) } else { self.inner.poll(ticket, wait) }
    }

    fn read(&mut self, state: ItemId, at: usize, out: &mut [u8]) -> Result<()> {
        self.pass(Point::Read)?;
        self.inner.read(state, at, out)
    }

    fn write(&mut self, state: ItemId, at: usize, bytes: &[u8]) -> Result<()> {
        self.pass(Point::Write)?;
        self.inner.write(state, at, bytes)
    }

    fn vacate(&mut self, states: &[ItemId]) -> Result<u64> {
        self.inner.vacate(states)
    }

    fn harm(&mut self, harm: Harm) -> bool {
        self.inner.harm(harm)
    }
}

fn error(harm: Harm, point: Point) -> Error {
    let (kind, what) = match harm {
        Harm::OutOfMemory => (Kind::OutOfMemory, "the device has no memory left"),
        _ => (Kind::DeviceLost, "the device was lost"),
    };
    Error::new(kind, format!("{what}: a fault that was asked for")).at(format!("{point:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_as_planned_and_are_counted() {
        let lost = Fault::new(Point::Submit, Harm::Lost);
        let faults = Faults::planned(&[(lost, 2), (Fault::new(Point::Read, Harm::Lost), 0)]);
        let passages: Vec<_> = (0..5).map(|_| faults.at(Point::Submit, |_| true)).collect();
        assert_eq!(passages, [None, None, Some(Harm::Lost), None, None]);
        assert_eq!(faults.hits(), BTreeMap::from([(lost, 1)]));
        let faults = Faults::lasting(&[], lost, 1);
        let passages: Vec<_> = (0..4).map(|_| faults.at(Point::Submit, |_| true).is_some()).collect();
        assert_eq!(passages, [false, true, true, true]);
        faults.calm(true);
        assert_eq!(faults.at(Point::Submit, |_| true), None);
    }

    #[test]
    fn chance_reaches_every_fault() {
        let faults = Faults::random(3, 2, &[]);
        for point in Fault::ALL.iter().map(|fault| fault.point).collect::<std::collections::BTreeSet<_>>() {
            (0..200).for_each(|_| {
                faults.at(point, |_| true);
            });
        }
        let hits = faults.hits();
        assert!(Fault::ALL.iter().all(|fault| hits.contains_key(fault)), "{hits:?}");
    }
}
