//! Building a plan step by step, checked while it is built.

use crate::error::{Error, Result};
use crate::kernel::{Form, Home};

use super::{Extent, ItemId, Operand, Plan, Step, Store, Temp, TempId, fuse};

/// Makes a [`Plan`] over a [`Store`].
#[derive(Debug)]
pub struct Builder<'a> {
    store: &'a Store,
    plan: Plan,
    is_fused: bool,
}

impl<'a> Builder<'a> {
    /// An empty plan over `store`.
    pub fn new(store: &'a Store, name: &str, max_rows: u32, max_outputs: u32) -> Self {
        let (temps, steps) = (Vec::new(), Vec::new());
        let plan = Plan { name: name.into(), max_rows, max_outputs, result: None, temps, steps };
        Self { store, plan, is_fused: false }
    }

    /// With `state`, a word for each output, as the plan's result.
    pub fn handing_out(self, state: ItemId) -> Self {
        Self { plan: Plan { result: Some(state), ..self.plan }, ..self }
    }

    /// From now on, a step is joined with the one before it where a kernel is both, and attention of few rows is split
    /// over its keys. What the first of two that are joined writes must be read by the second alone.
    pub fn fused(self) -> Self {
        Self { is_fused: true, ..self }
    }

    /// Scratch of `width` f32 a row.
    pub fn temp(&mut self, name: &str, extent: Extent, width: usize) -> Operand {
        self.plan.temps.push(Temp { name: name.into(), extent, width });
        Operand::Temp(TempId(self.plan.temps.len() as u32 - 1))
    }

    /// The next step: a call of kernel `H`.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] where the arguments are not what the kernel takes, or where one that it writes
    /// is there twice.
    pub fn step<H: Home>(
        &mut self,
        label: impl Into<String>,
        extent: Extent,
        form: Form,
        params: H::Params,
        args: &[Operand],
    ) -> Result<()> {
        let step = Step {
            label: label.into(),
            kernel: H::ID,
            params: bytemuck::bytes_of(&params).to_vec(),
            form,
            extent,
            args: args.to_vec(),
        };
        self.check(&step).map_err(|error| error.at(format!("{} of {}", step.label, step.home().name)))?;
        if !self.is_fused {
            self.plan.steps.push(step);
            return Ok(());
        }
        if let Some((width, both)) = fuse::split(&step, self.plan.max_of(extent)) {
            let parts = self.temp(&format!("{}.parts", step.label), extent, width);
            self.plan.steps.extend(both(parts));
            return Ok(());
        }
        let last = self.plan.steps.last_mut();
        let joined = last.and_then(|last| fuse::join(last, &step).map(|joined| *last = joined));
        if joined.is_none() {
            self.plan.steps.push(step);
        }
        Ok(())
    }

    /// Steps so far.
    pub fn len(&self) -> usize {
        self.plan.steps.len()
    }

    /// Whether there is no step yet.
    pub fn is_empty(&self) -> bool {
        self.plan.steps.is_empty()
    }

    /// The most rows of `extent`.
    pub fn max_of(&self, extent: Extent) -> u32 {
        self.plan.max_of(extent)
    }

    /// The plan.
    pub fn finish(self) -> Plan {
        self.plan
    }

    fn check(&self, step: &Step) -> Result<()> {
        let kinds = step.home().args;
        if step.args.len() != kinds.len() {
            return Err(Error::internal(format!(
                "{} arguments where {} belong",
                step.args.len(),
                kinds.len()
            )));
        }
        for (index, (&arg, &kind)) in step.args.iter().zip(kinds).enumerate() {
            let fits = match arg {
                Operand::Item(id) => self.store.item(id).fits(kind),
                Operand::Temp(_) => {
                    matches!(kind, crate::kernel::ArgKind::F32 | crate::kernel::ArgKind::F32Mut)
                }
            };
            if !fits {
                return Err(Error::internal(format!("argument {index} is not {kind:?}")));
            }
            let again =
                step.args.iter().enumerate().any(|(other, &operand)| other != index && operand == arg);
            if kind.is_written() && again {
                return Err(Error::internal(format!("argument {index} is written and used twice")));
            }
        }
        Ok(())
    }
}
