//! Who has a seat and pages, and who gives them up for whom.

use crate::error::{Error, Result};
use crate::kernel::{KvType, PAGE};

use super::kv::Seat;
use super::runner::{Runner, SessionId, State};
use super::schedule::Slice;

impl Runner {
    /// A session with the history of another one, whose whole pages they share from now on. Without a seat for it the history
    /// is computed again.
    pub(super) fn branch(&mut self, of: SessionId) -> SessionId {
        let id = self.open();
        let seated = self.sessions.get(&of).filter(|state| state.seat.is_some()).map(|state| state.cache);
        let seat = seated.and_then(|cache| self.free_seat(cache, &[of]));
        let Some(origin) = self.sessions.get(&of) else { return id };
        let State { cache, overflow, dropped, computed, .. } = *origin;
        let mut branch = State {
            history: origin.history.clone(),
            cache,
            overflow,
            dropped,
            used: self.clock,
            ..State::default()
        };
        if let (Some(mut seat), Some(shared)) = (seat, &origin.seat) {
            let count = (computed / PAGE) as usize;
            self.pools[cache].share(&mut seat, &shared.pages, count);
            branch.computed = count as u32 * PAGE;
            branch.seat = Some(seat);
        }
        self.sessions.insert(id, branch);
        id
    }

    /// Slices whose positions have pages. A session that finds none takes those of idle sessions, then of the
    /// younger answers, which compute again later.
    pub(super) fn with_pages(&mut self, seated: &[SessionId], slices: &[Slice]) -> Vec<(SessionId, u32)> {
        let mut granted: Vec<(SessionId, u32)> = Vec::new();
        for slice in slices {
            let id = seated[slice.demand];
            while let Some(state) = self.sessions.get_mut(&id) {
                // Its seat may have gone to one that came before it in this very slice.
                let Some(seat) = &mut state.seat else { break };
                let (cache, pool) = (state.cache, &mut self.pools[state.cache]);
                state.computed = pool.own(seat, state.computed);
                if pool.grow(seat, state.computed + slice.rows) {
                    granted.push((id, slice.rows));
                    break;
                }
                let keeps: Vec<SessionId> = granted.iter().map(|(id, _)| *id).chain([id]).collect();
                if !self.evict(cache, &keeps, true) {
                    break;
                }
            }
        }
        granted
    }

    /// Whether `id` has a seat, after taking one from an idle session where none is free.
    pub(super) fn seat(&mut self, id: SessionId) -> bool {
        loop {
            let Some(state) = self.sessions.get_mut(&id) else { return false };
            if state.seat.is_some() {
                return true;
            }
            let cache = state.cache;
            let Some(seat) = self.free_seat(cache, &[id]) else { return false };
            if let Some(state) = self.sessions.get_mut(&id) {
                state.seat = Some(seat);
            }
        }
    }

    /// A seat in a cache that nobody has, if need be that of an idle session which is not one of `keeps`.
    fn free_seat(&mut self, cache: usize, keeps: &[SessionId]) -> Option<Seat> {
        loop {
            let seat = self.pools[cache].sit();
            if seat.is_some() || !self.evict(cache, keeps, false) {
                return seat;
            }
        }
    }

    /// Takes the seat in a cache of the session that computed longest ago; only with `busy` that of one with an answer under
    /// way, the youngest then. Whether there was one.
    pub(super) fn evict(&mut self, cache: usize, keeps: &[SessionId], busy: bool) -> bool {
        let is_there = |state: &State| state.cache == cache && state.seat.is_some();
        let others = || self.sessions.iter().filter(|(id, state)| is_there(state) && !keeps.contains(id));
        let idle = others().filter(|(_, state)| state.job.is_none()).min_by_key(|(_, state)| state.used);
        let youngest = || others().filter(|_| busy).max_by_key(|(id, _)| **id);
        let Some(id) = idle.or_else(youngest).map(|(&id, _)| id) else { return false };
        self.stand_up(id);
        true
    }

    /// Where the session's keys and values are stored.
    pub(super) fn kv_type(&self, id: SessionId) -> Option<KvType> {
        self.session(id).map(|state| self.lowered.caches[state.cache].options.kv)
    }

    /// Which cache stores keys and values so.
    pub(super) fn cache_of(&self, kv: KvType) -> Option<usize> {
        self.lowered.caches.iter().position(|cache| cache.options.kv == kv)
    }

    /// Has the session's keys and values stored otherwise; they are computed again then.
    pub(super) fn set_kv_type(&mut self, id: SessionId, kv: KvType) -> Result<()> {
        let Some(cache) = self.cache_of(kv) else {
            let there: Vec<&str> = self.lowered.caches.iter().map(|cache| cache.options.kv.name()).collect();
            let what = format!("the model has no places for keys and values in {}", kv.name());
            let hint = format!("load it with some (`more_sessions`), or take {}", there.join(" or "));
            return Err(Error::invalid(what).hint(hint));
        };
        let state = self.idle_mut(id)?;
        if state.cache != cache {
            self.stand_up(id);
            self.idle_mut(id)?.cache = cache;
        }
        Ok(())
    }

    /// Takes a session's seat, and with it what is computed.
    pub(super) fn stand_up(&mut self, id: SessionId) {
        self.forget(id);
        let Some(state) = self.sessions.get_mut(&id) else { return };
        state.computed = 0;
        if let Some(seat) = state.seat.take() {
            self.pools[state.cache].leave(seat);
        }
    }

    /// Who may compute next, by whose turn it is, and in which cache: a submission reads one.
    pub(super) fn turns(&self, seated: &[SessionId]) -> (usize, Vec<SessionId>) {
        let cache = |id: &SessionId| self.session(*id).map_or(0, |state| state.cache);
        let (later, sooner) = seated.split_at((self.clock % seated.len() as u64) as usize);
        let mut turns: Vec<SessionId> = sooner.iter().chain(later).copied().collect();
        let now = turns.first().map_or(0, cache);
        turns.retain(|id| cache(id) == now);
        (now, turns)
    }

    /// Whether the session's seat has pages for `positions` now; nobody else's are taken.
    pub(super) fn give_pages(&mut self, id: SessionId, positions: u32) -> bool {
        let Some(state) = self.sessions.get_mut(&id) else { return false };
        let pool = &mut self.pools[state.cache];
        state.seat.as_mut().is_some_and(|seat| pool.grow(seat, positions))
    }
}
