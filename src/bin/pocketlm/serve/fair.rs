//! A bounded queue that is fair to clients: each has a line of its own, and the lines take turns. Where it is full, whoever has
//! most in it gives way to those who have less.

use std::collections::VecDeque;

/// Items in lines by client, at most so many.
#[derive(Debug)]
pub(crate) struct Fair<C, T> {
    /// None of the lines is empty; the first is next.
    lines: VecDeque<(C, VecDeque<T>)>,
    length: usize,
    most: usize,
}

impl<C: PartialEq, T> Fair<C, T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { lines: VecDeque::new(), length: 0, most }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Adds an item; the one that had to give way for it, which may be itself.
    pub(crate) fn push(&mut self, client: C, item: T) -> Option<T> {
        let mut left = None;
        if self.length >= self.most {
            let own = self.lines.iter().find(|(of, _)| *of == client).map_or(0, |(_, line)| line.len());
            let longest = self.lines.iter_mut().max_by_key(|(_, line)| line.len());
            match longest {
                Some((_, line)) if line.len() > own + 1 => left = line.pop_back(),
                _ => return Some(item),
            }
            self.length -= 1;
        }
        self.push_beyond(client, item);
        left
    }

    /// Adds an item, however many there are.
    pub(crate) fn push_beyond(&mut self, client: C, item: T) {
        match self.lines.iter_mut().find(|(of, _)| *of == client) {
            Some((_, line)) => line.push_back(item),
            None => self.lines.push_back((client, VecDeque::from([item]))),
        }
        self.length += 1;
    }

    /// The next item: the first of the line whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (client, mut line) = self.lines.pop_front()?;
        let item = line.pop_front();
        if !line.is_empty() {
            self.lines.push_back((client, line));
        }
        self.length -= usize::from(item.is_some());
        item
    }

    /// Takes out what `is_meant`.
    pub(crate) fn take(&mut self, mut is_meant: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (_, line) in &mut self.lines {
            let (meant, rest): (Vec<T>, Vec<T>) = line.drain(..).partition(|item| is_meant(item));
            taken.extend(meant);
            line.extend(rest);
        }
        self.lines.retain(|(_, line)| !line.is_empty());
        self.length -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(fair: &mut Fair<char, (char, u32)>) -> String {
        std::iter::from_fn(|| fair.pop()).map(|(client, number)| format!("{client}{number} ")).collect()
    }

    #[test]
    fn clients_take_turns() {
        let mut fair = Fair::new(10);
        for item in [('a', 1), ('a', 2), ('a', 3), ('b', 1), ('c', 1), ('b', 2)] {
            assert_eq!(fair.push(item.0, item), None);
        }
        assert_eq!(fair.len(), 6);
        assert_eq!(drain(&mut fair), "a1 b1 c1 a2 b2 a3 ");
        assert_eq!((fair.len(), fair.pop()), (0, None));
    }

    #[test]
    fn who_has_most_gives_way() {
        let mut fair = Fair::new(3);
        for number in 1..=3 {
            assert_eq!(fair.push('a', ('a', number)), None);
        }
        assert_eq!(fair.push('a', ('a', 4)), Some(('a', 4)), "nobody has more than who comes");
        assert_eq!(fair.push('b', ('b', 1)), Some(('a', 3)));
        assert_eq!(fair.push('b', ('b', 2)), Some(('b', 2)), "as many as the other would have");
        assert_eq!(fair.push('c', ('c', 1)), Some(('a', 2)));
        assert_eq!(fair.push('d', ('d', 1)), Some(('d', 1)), "all have one");
        assert_eq!(fair.len(), 3);
        assert_eq!(drain(&mut fair), "a1 b1 c1 ");
        assert_eq!(Fair::new(0).push('a', 1), Some(1));
    }

    #[test]
    fn what_is_taken_out_is_gone() {
        let mut fair = Fair::new(9);
        for item in [('a', 1), ('a', 2), ('b', 1)] {
            fair.push(item.0, item);
        }
        assert_eq!(fair.take(|item| item.1 == 1), [('a', 1), ('b', 1)]);
        assert_eq!((fair.len(), drain(&mut fair)), (1, "a2 ".into()));
    }
}
