//! What of a session leaves the runner to be saved, and comes back. The history is enough; keys and values are taken along
//! by whole pages where they are wanted, and used only by whom they fit.

use crate::base::Bytes;
use crate::error::Result;
use crate::kernel::{KvType, PAGE};
use crate::model::Cache;
use crate::plan::ItemId;

use super::identity::{Hash, joined};
use super::runner::{Runner, SessionId, State};
use super::saved::{SavedKv, Unfinished};
use super::view::{self, Overflow};

/// What of a session is the runner's.
pub(super) struct Kept {
    pub(super) overflow: Overflow,
    /// How its keys and values are stored.
    pub(super) kv_type: Option<KvType>,
    pub(super) history: Vec<u32>,
    pub(super) answer: Option<Unfinished>,
    pub(super) kv: Option<SavedKv>,
}

impl Runner {
    /// What is known of a session now: of an answer under way the tokens that have landed. With `kv` its keys and values
    /// too, by whole pages; a device that cannot hand them out costs them, and not the history.
    pub(super) fn keep(&mut self, id: SessionId, kv: bool, identity: &[Hash]) -> Option<Kept> {
        // What was cancelled is not under way.
        self.cancel();
        let prompt_tokens = self.prompt_tokens(id);
        let seed = self.chain(id).and_then(|(chain, _)| chain.seed());
        let State { overflow, .. } = *self.session(id)?;
        let history = self.session(id)?.history.clone();
        let answer =
            prompt_tokens.map(|prompt_tokens| Unfinished { prompt_tokens, seed, limit: self.limit(id) });
        let kv = if kv { self.read_kv(id, identity) } else { Ok(None) };
        let kv = kv.unwrap_or_else(|error| {
            log::warn!("the session is saved without keys and values: {error}");
            None
        });
        Some(Kept { overflow, kv_type: self.kv_type(id), history, answer, kv })
    }

    /// A session with this history, in the cache that it was in where there is one like it. Keys and values spare computing it again, where they fit and there is room.
    ///
    /// # Errors
    /// `ContextOverflow` where the history is more than the context holds, and does not slide.
    pub(super) fn put_back(&mut self, kept: Kept, identity: &[Hash]) -> Result<SessionId> {
        let Kept { overflow, kv_type, history, kv, .. } = kept;
        let (total, context) = (history.len() as u32, self.lowered.options.context);
        overflow.check(context)?;
        // An answer may have filled the context to the last token.
        let dropped = match total == context && overflow == Overflow::Stop {
            true => 0,
            false => overflow.dropped(total, context).ok_or_else(|| view::overflow(total, context))?,
        };
        let cache = kv_type.and_then(|kv_type| self.cache_of(kv_type));
        let id = self.open();
        let positions = kv.as_ref().map_or(0, |kv| kv.positions.min(history.len() as u32));
        if let Some(state) = self.session_mut(id) {
            (state.history, state.overflow, state.dropped) = (history, overflow, dropped);
            state.cache = cache.unwrap_or(0);
        }
        // Keys and values are saved of a history that is seen from its beginning.
        let Some(kv) = kv.filter(|_| dropped == 0) else { return Ok(id) };
        match self.write_kv(id, &kv, identity) {
            Ok(true) => {
                if let Some(state) = self.session_mut(id) {
                    state.computed = positions;
                }
            }
            Ok(false) => log::info!("keys and values of another layout: the history is computed again"),
            Err(error) => {
                log::warn!("keys and values were not taken, the history is computed again: {error}")
            }
        }
        Ok(id)
    }

    /// Who can use keys and values of a cache: the model, its adapters and their weights, and the layout.
    fn kv_key(&self, cache: &Cache, identity: &[Hash]) -> Hash {
        let pages: Vec<u32> = cache.states().map(|item| self.page_bytes(cache, item) as u32).collect();
        let mut parts: Vec<&[u8]> = identity.iter().map(|hash| &hash[..]).collect();
        let rounded = [u8::from(self.lowered.options.int8_activations)];
        let page = PAGE.to_le_bytes();
        let turned = [u8::from(cache.options.turned)];
        let kind = cache.options.kv.name().as_bytes();
        parts.extend([bytemuck::cast_slice(&self.weights), kind, &turned, &rounded, &page]);
        parts.push(bytemuck::cast_slice(&pages));
        joined(&parts)
    }

    fn page_bytes(&self, cache: &Cache, item: ItemId) -> usize {
        4 * self.lowered.store.item(item).words() / cache.options.pages as usize
    }

    /// Where pages of a cache lie: byte and length of each run in each state.
    fn places(&self, cache: &Cache, pages: &[u32]) -> Vec<(ItemId, usize, usize)> {
        let runs: Vec<&[u32]> = pages.chunk_by(|a, b| a + 1 == *b).collect();
        let of = |item| {
            let bytes = self.page_bytes(cache, item);
            runs.iter().map(move |run| (item, run[0] as usize * bytes, run.len() * bytes)).collect::<Vec<_>>()
        };
        cache.states().flat_map(of).collect()
    }

    fn read_kv(&mut self, id: SessionId, identity: &[Hash]) -> Result<Option<SavedKv>> {
        let Ok((state, seat)) = self.seated(id) else { return Ok(None) };
        let count = (state.computed / PAGE) as usize;
        if count == 0 || state.dropped > 0 {
            return Ok(None);
        }
        let cache = &self.lowered.caches[state.cache];
        let (key, places) = (self.kv_key(cache, identity), self.places(cache, &seat.pages[..count]));
        let mut bytes = vec![0; places.iter().map(|(.., len)| len).sum()];
        let mut at = 0;
        for (item, from, len) in places {
            self.backend.read(item, from, &mut bytes[at..at + len])?;
            at += len;
        }
        let positions = count as u32 * PAGE;
        Ok(Some(SavedKv { key, positions, bytes: Bytes::from(bytes) }))
    }

    /// Whether they fit and there was room.
    fn write_kv(&mut self, id: SessionId, kv: &SavedKv, identity: &[Hash]) -> Result<bool> {
        let count = (kv.positions / PAGE) as usize;
        let at = self.session(id).map_or(0, |state| state.cache);
        let cache = &self.lowered.caches[at];
        let due: usize = cache.states().map(|item| count * self.page_bytes(cache, item)).sum();
        let fits = kv.positions.is_multiple_of(PAGE)
            && kv.bytes.len() == due
            && kv.positions <= self.lowered.options.context
            && kv.key == self.kv_key(cache, identity);
        if !fits || !self.seat(id) {
            return Ok(false);
        }
        while !self.give_pages(id, kv.positions) {
            if !self.evict(at, &[id], false) {
                return Ok(false);
            }
        }
        let (_, seat) = self.seated(id)?;
        let places = self.places(&self.lowered.caches[at], &seat.pages[..count]);
        let mut at = 0;
        for (item, to, len) in places {
            self.backend.write(item, to, &kv.bytes[at..at + len])?;
            at += len;
        }
        Ok(true)
    }
}
