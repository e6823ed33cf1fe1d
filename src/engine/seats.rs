//! Who has a seat and pages, and who gives them up for whom.

use crate::kernel::PAGE;

use super::kv::Seat;
use super::runner::{Runner, SessionId, State};
use super::schedule::Slice;

impl Runner {
    /// A session with the history of another one, whose whole pages they share from now on. Without a seat for it the history
    /// is computed again.
    pub(super) fn branch(&mut self, of: SessionId) -> SessionId {
        let id = self.open();
        let has_seat = self.sessions.get(&of).is_some_and(|state| state.seat.is_some());
        let seat = has_seat.then(|| self.free_seat(&[of])).flatten();
        let Some(origin) = self.sessions.get(&of) else { return id };
        let State { overflow, dropped, computed, .. } = *origin;
        let mut branch = State {
            history: origin.history.clone(),
            overflow,
            dropped,
            used: self.clock,
            ..State::default()
        };
        if let (Some(mut seat), Some(shared)) = (seat, &origin.seat) {
            let count = (computed / PAGE) as usize;
            self.pool.share(&mut seat, &shared.pages, count);
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
                state.computed = self.pool.own(seat, state.computed);
                if self.pool.grow(seat, state.computed + slice.rows) {
                    granted.push((id, slice.rows));
                    break;
                }
                let keeps: Vec<SessionId> = granted.iter().map(|(id, _)| *id).chain([id]).collect();
                if !self.evict(&keeps, true) {
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
            let Some(seat) = self.free_seat(&[id]) else { return false };
            if let Some(state) = self.sessions.get_mut(&id) {
                state.seat = Some(seat);
            }
        }
    }

    /// A seat that nobody has, if need be that of an idle session which is not one of `keeps`.
    fn free_seat(&mut self, keeps: &[SessionId]) -> Option<Seat> {
        loop {
            let seat = self.pool.sit();
            if seat.is_some() || !self.evict(keeps, false) {
                return seat;
            }
        }
    }

    /// Takes the seat of the session that computed longest ago; only with `busy` that of one with an answer under
    /// way, the youngest then. Whether there was one.
    pub(super) fn evict(&mut self, keeps: &[SessionId], busy: bool) -> bool {
        let others =
            || self.sessions.iter().filter(|(id, state)| state.seat.is_some() && !keeps.contains(id));
        let idle = others().filter(|(_, state)| state.job.is_none()).min_by_key(|(_, state)| state.used);
        let youngest = || others().filter(|_| busy).max_by_key(|(id, _)| **id);
        let Some(id) = idle.or_else(youngest).map(|(&id, _)| id) else { return false };
        self.forget(id);
        let Some(state) = self.sessions.get_mut(&id) else { return false };
        state.computed = 0;
        if let Some(seat) = state.seat.take() {
            self.pool.leave(seat);
        }
        true
    }

    /// Whether the session's seat has pages for `positions` now; nobody else's are taken.
    pub(super) fn give_pages(&mut self, id: SessionId, positions: u32) -> bool {
        let seat = self.sessions.get_mut(&id).and_then(|state| state.seat.as_mut());
        seat.is_some_and(|seat| self.pool.grow(seat, positions))
    }
}
