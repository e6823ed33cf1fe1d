//! Handles. What C holds is no address but a number, which is looked up here at each call and never given twice: one that was
//! freed, is null or was never given is an error and not a fault of memory. Numbers are odd, as no address of an object is.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::condense::ReplyObject;
use crate::engine::EngineObject;
use crate::model::ModelObject;
use crate::session::SessionObject;
use crate::stream::StreamObject;

/// Why there is nothing behind a handle.
#[derive(Debug)]
pub(crate) struct NoHandle(pub(crate) String);

/// What a handle stands for. A call that is under way keeps it, whoever frees it meanwhile.
#[derive(Clone)]
pub(crate) enum Object {
    Engine(Arc<EngineObject>),
    Model(Arc<ModelObject>),
    Session(Arc<SessionObject>),
    Stream(Arc<StreamObject>),
    Reply(Arc<ReplyObject>),
}

/// One kind of object.
pub(crate) trait Held: Sized {
    const NAME: &'static str;

    fn wrap(held: Arc<Self>) -> Object;

    fn unwrap(object: &Object) -> Option<Arc<Self>>;
}

macro_rules! held {
    ($($kind:ident $object:ty, $name:literal;)*) => {
        $(impl Held for $object {
            const NAME: &'static str = $name;

            fn wrap(held: Arc<Self>) -> Object {
                Object::$kind(held)
            }

            fn unwrap(object: &Object) -> Option<Arc<Self>> {
                match object {
                    Object::$kind(held) => Some(held.clone()),
                    _ => None,
                }
            }
        })*

        impl Object {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => <$object>::NAME,)*
                }
            }
        }
    };
}

held! {
    Engine EngineObject, "an engine";
    Model ModelObject, "a model";
    Session SessionObject, "a session";
    Stream StreamObject, "a stream";
    Reply ReplyObject, "a reply";
}

#[derive(Default)]
struct Table {
    objects: HashMap<usize, Object>,
    last: usize,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// A handle for `held`. `P` is the type that C sees, which nothing is ever made of.
pub(crate) fn give<T: Held, P>(held: T) -> Result<*mut P, NoHandle> {
    let mut table = table();
    let number = table.last.checked_add(if table.last == 0 { 1 } else { 2 });
    let number = number.ok_or_else(|| NoHandle("all handles have been given".into()))?;
    table.last = number;
    table.objects.insert(number, T::wrap(Arc::new(held)));
    Ok(std::ptr::without_provenance_mut(number))
}

/// What `handle` stands for.
pub(crate) fn get<T: Held, P>(handle: *mut P) -> Result<Arc<T>, NoHandle> {
    let object = table().objects.get(&handle.addr()).cloned();
    let object = object.ok_or_else(|| missing::<T>(handle.addr()))?;
    T::unwrap(&object)
        .ok_or_else(|| NoHandle(format!("the handle is of {}, and {} is asked for", object.name(), T::NAME)))
}

/// Takes `handle` out of use and gives what it stood for.
pub(crate) fn take<T: Held, P>(handle: *mut P) -> Result<Arc<T>, NoHandle> {
    let held = get::<T, P>(handle)?;
    // Another thread may have been quicker.
    table().objects.remove(&handle.addr()).ok_or_else(|| missing::<T>(handle.addr()))?;
    Ok(held)
}

fn missing<T: Held>(number: usize) -> NoHandle {
    match number {
        0 => NoHandle(format!("the handle of {} is null", T::NAME)),
        _ => NoHandle(format!("the handle of {} was freed, or never given", T::NAME)),
    }
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}
