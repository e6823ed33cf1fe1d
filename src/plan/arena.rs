//! Where temps live: those whose lives do not meet share a room.
//!
//! Rooms are whole buffers, not offsets in one, because wgpu forbids reading and writing one buffer in the same
//! dispatch even at disjoint ranges.

use super::{Operand, Plan};

/// A buffer shared by temps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// f32 elements.
    pub len: usize,
}

/// The rooms of a plan, and who lives where.
#[derive(Clone, Debug)]
pub struct Arena {
    /// The buffers.
    pub rooms: Vec<Room>,
    /// By temp: its room, or `None` where no step uses it.
    pub room_of: Vec<Option<usize>>,
}

impl Arena {
    /// Lays out the temps of `plan`: each, in the order of its first use, takes the free room whose size fits
    /// best.
    pub fn of(plan: &Plan) -> Self {
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; plan.temps.len()];
        for (at, step) in plan.steps.iter().enumerate() {
            for arg in &step.args {
                if let Operand::Temp(id) = arg {
                    let life = &mut lives[id.index()];
                    *life = Some((life.map_or(at, |(first, _)| first), at));
                }
            }
        }
        let mut order: Vec<(usize, usize, usize)> = lives
            .iter()
            .enumerate()
            .filter_map(|(temp, life)| life.map(|(first, last)| (first, last, temp)))
            .collect();
        order.sort_unstable();

        let mut arena = Self { rooms: Vec::new(), room_of: vec![None; plan.temps.len()] };
        let mut free_after: Vec<usize> = Vec::new();
        for (first, last, temp) in order {
            let len = plan.temp_len(&plan.temps[temp]);
            let vacant = (0..arena.rooms.len()).filter(|&room| free_after[room] < first);
            let room = vacant.min_by_key(|&room| arena.rooms[room].len.abs_diff(len)).unwrap_or_else(|| {
                arena.rooms.push(Room { len });
                free_after.push(0);
                arena.rooms.len() - 1
            });
            arena.rooms[room].len = arena.rooms[room].len.max(len);
            free_after[room] = last;
            arena.room_of[temp] = Some(room);
        }
        arena
    }
}
