//! Sessions that have answered, kept for requests that begin as they do: what both have in common is not computed again.

use pocketlm::{Model, Session};

/// Positions that a page of keys and values has: what sessions share when one branches off another.
const PAGE: usize = 32;

/// Idle sessions with their histories, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Kept(Vec<(Session, Vec<u32>)>);

/// What becomes of the sessions that are kept when a prompt comes.
#[derive(Debug, PartialEq)]
enum Choice {
    /// The one at this place goes on.
    Take(usize),
    /// Another goes on from where the one at this place and the prompt part.
    Branch(usize),
    New,
}

impl Kept {
    /// The session to answer a prompt with, while so many others answer, and `seats` have a place for their keys and values.
    pub(crate) fn take(&mut self, model: &Model, prompt: &[u32], busy: usize, seats: usize) -> Session {
        let histories: Vec<&[u32]> = self.0.iter().map(|(_, history)| history.as_slice()).collect();
        match choose(&histories, prompt, seats.saturating_sub(busy + 1)) {
            Choice::Take(at) => self.0.remove(at).0,
            Choice::Branch(at) => {
                // The one that others go on from is not the one to be forgotten next.
                let origin = self.0.remove(at);
                let branch = origin.0.branch();
                self.0.push(origin);
                branch
            }
            Choice::New => model.session(),
        }
    }

    /// Keeps a session with its history, and no more than `seats` in all.
    pub(crate) fn put(&mut self, session: Session, history: Vec<u32>, seats: usize) {
        self.0.push((session, history));
        let over = self.0.len().saturating_sub(seats);
        self.0.drain(..over);
    }
}

/// Which of the `histories` a prompt goes on from, where there is room for so many idle ones beside its own.
fn choose(histories: &[&[u32]], prompt: &[u32], room: usize) -> Choice {
    let common = |history: &[u32]| history.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    let best = (0..histories.len()).max_by_key(|&at| common(histories[at]));
    let Some(best) = best else { return Choice::New };
    let shared = common(histories[best]);
    let lost = histories[best].len() - shared;
    match shared {
        // Little is won, and a history is not lost for little; where its place is needed, the engine takes it.
        0..PAGE if lost > shared => Choice::New,
        // Another answer to the same is in place of the last one.
        _ if shared == prompt.len() => Choice::Take(best),
        PAGE.. if lost > PAGE && room > 0 => Choice::Branch(best),
        _ => Choice::Take(best),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_common_beginning_is_gone_on_from() {
        let talk: Vec<u32> = (0..100).collect();
        let other: Vec<u32> = (0..60).chain(500..600).collect();
        let next: Vec<u32> = (0..120).collect();
        let choose = |histories: &[&[u32]], prompt: &[u32], room| super::choose(histories, prompt, room);
        assert_eq!(choose(&[&other, &talk], &next, 1), Choice::Take(1));
        // The instructions alone are the same: what was said after them stays.
        assert_eq!(choose(&[&other], &next, 1), Choice::Branch(0));
        assert_eq!(choose(&[&other], &next, 0), Choice::Take(0), "without a place for both");
        assert_eq!(choose(&[&talk], &talk[..50], 1), Choice::Take(0), "another answer");
        assert_eq!(choose(&[&talk], &[0, 7], 1), Choice::New, "a first token is nothing in common");
        assert_eq!(choose(&[&[0, 1]], &[0, 7], 1), Choice::Take(0));
        assert_eq!(choose(&[], &next, 1), Choice::New);
        assert_eq!(choose(&[&talk], &[900], 0), Choice::New);
    }
}
