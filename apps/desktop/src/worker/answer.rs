//! One answer: how it begins, and what is told of it.

use pocketlm::{Error, Event, GenerateOptions, Message, Model, Overflow, Prompt, Result, Stream};

use super::live::Sessions;
use super::{Request, Said};
use crate::conversation::Role;
use crate::energy::Energy;
use crate::store::Store;

/// Tokens at the beginning of a conversation that stay in sight when it outgrows the context.
const SINKS: u32 = 64;

/// Begins an answer, or goes on with one that was under way when the program ended.
pub(super) fn begin(
    model: &Model,
    sessions: &mut Sessions,
    store: &Store,
    request: &Request,
    goes_on: bool,
) -> Result<Stream> {
    let Request { conversation, node, path, asked, .. } = request;
    let options = asked.options()?;
    let whole: Vec<usize> = path.iter().copied().chain([*node]).collect();
    if goes_on && let Some((session, stream)) = proceed(model, store, request, &options) {
        sessions.put(conversation, whole, session);
        return Ok(stream);
    }
    let mut session = sessions.take(model, store, conversation, path);
    if asked.slides {
        session.set_overflow(Overflow::Slide { sinks: SINKS.min(model.info().context / 4) })?;
    }
    let stream = session.generate(&prompt(model, request), &options)?;
    sessions.put(conversation, whole, session);
    Ok(stream)
}

/// The answer as it was saved, where it was, by this model.
fn proceed(
    model: &Model,
    store: &Store,
    request: &Request,
    options: &GenerateOptions,
) -> Option<(pocketlm::Session, Stream)> {
    let saved = model.restore(store.session(&request.conversation, request.node));
    let mut session = saved.inspect_err(|error| log::info!("answered anew: {error}")).ok()?;
    let stream = session.proceed(options).inspect_err(|error| log::info!("answered anew: {error}")).ok()?;
    Some((session, stream))
}

/// What was said as the model wants to read it; a model without a chat template goes on with the text.
fn prompt(model: &Model, request: &Request) -> Prompt {
    let Request { system, messages, .. } = request;
    if !model.can_chat() {
        let texts: Vec<&str> = messages.iter().map(|(_, text)| text.as_str()).collect();
        return Prompt::Raw(texts.concat());
    }
    let system = (!system.trim().is_empty()).then(|| Message::new("system", system));
    let said = messages.iter().map(|(role, text)| {
        let role = if *role == Role::User { "user" } else { "assistant" };
        Message::new(role, text)
    });
    Prompt::Chat(system.into_iter().chain(said).collect())
}

/// Tells of an answer until it ends, and gives what is to be told last.
pub(super) fn follow(stream: Stream, mut energy: Option<Energy>, tell: impl Fn(Said)) -> Said {
    for event in stream {
        match event {
            Ok(Event::Prefill { done, total }) => tell(Said::Read(done, total)),
            Ok(Event::Text(text)) => tell(Said::Text(text)),
            Ok(Event::Recovered { why, device }) => tell(Said::Recovered(why, device)),
            Ok(Event::Finished(finish)) => {
                return Said::Finished(Box::new(finish), energy.as_mut().map(Energy::joules));
            }
            Ok(_) => {}
            Err(error) => return Said::Failed(error),
        }
    }
    Said::Failed(Error::internal("the answer ended without its last event"))
}
