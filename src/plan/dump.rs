//! Printing a plan: one line a step.

use std::fmt;

use super::{Operand, Plan, Store};

impl Plan {
    /// A view that prints the plan with the names of `store`.
    pub fn dump<'a>(&'a self, store: &'a Store) -> impl fmt::Display + 'a {
        Dump { plan: self, store }
    }
}

struct Dump<'a> {
    plan: &'a Plan,
    store: &'a Store,
}

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { name, max_rows, max_outputs, temps, steps, .. } = self.plan;
        writeln!(f, "plan {name}: {} steps, up to {max_rows} rows, {max_outputs} outputs", steps.len())?;
        for (index, step) in steps.iter().enumerate() {
            let home = step.home();
            write!(f, "{index:4}  {:9} {:24}", home.name, step.label)?;
            for (arg, kind) in step.args.iter().zip(home.args) {
                let (mark, name) = match arg {
                    Operand::Item(id) => ("", self.store.item(*id).name()),
                    Operand::Temp(id) => ("%", temps[id.index()].name.as_str()),
                };
                write!(f, " {}{mark}{name}", if kind.is_written() { "→" } else { "" })?;
            }
            if let Some(format) = step.form.format {
                write!(f, " {format}")?;
            }
            if let Some(epilogue) = step.form.epilogue {
                write!(f, " {epilogue:?}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
