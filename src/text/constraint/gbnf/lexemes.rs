//! Which rules may be lexemes. A lexeme is as long as it can be, so it stands for its rule where no text that it matches can
//! be made longer by a character that may also follow the rule.

use super::Node;
use super::set::Set;

/// What is known of the texts of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Texts {
    /// One is empty.
    nullable: bool,
    /// How they begin.
    first: Set,
    /// What else is in them.
    inner: Set,
    /// What may make one of them longer.
    longer: Set,
}

/// The rules that can be lexemes, among those that do not come back to themselves.
pub(super) fn lexemes(bodies: &[Node], root: usize) -> Vec<bool> {
    let mut texts = vec![Texts::default(); bodies.len()];
    // Each round adds to sets that cannot grow for ever.
    let mut grows = true;
    while grows {
        grows = false;
        // What a rule goes to stands behind it, as a rule.
        for (rule, body) in bodies.iter().enumerate().rev() {
            let mut next = of(body, &texts);
            next.nullable |= texts[rule].nullable;
            next.first.add(&texts[rule].first);
            next.inner.add(&texts[rule].inner);
            next.longer.add(&texts[rule].longer);
            grows |= next != texts[rule];
            texts[rule] = next;
        }
    }
    let mut follows = vec![Set::default(); bodies.len()];
    grows = true;
    while grows {
        grows = false;
        for (rule, body) in bodies.iter().enumerate() {
            let after = follows[rule].clone();
            grows |= spread(body, &after, &texts, &mut follows);
        }
    }
    let plain = plain(bodies);
    let is_lexeme = |rule: usize| plain[rule] && (rule == root || !texts[rule].longer.meets(&follows[rule]));
    (0..bodies.len()).map(is_lexeme).collect()
}

fn of(node: &Node, rules: &[Texts]) -> Texts {
    match node {
        Node::Text(text) => {
            let mut chars = text.chars();
            let first = chars.next().map(Set::one).unwrap_or_default();
            let inner = Set::of(chars.map(|c| (u32::from(c), u32::from(c))).collect());
            Texts { nullable: text.is_empty(), first, inner, longer: Set::default() }
        }
        Node::Class(set) => Texts { first: set.clone(), ..Texts::default() },
        Node::Rule(rule) => rules[*rule].clone(),
        Node::All(nodes) => {
            let empty = Texts { nullable: true, ..Texts::default() };
            nodes.iter().fold(empty, |all, node| all.then(&of(node, rules)))
        }
        Node::Any(nodes) => {
            let mut any = Texts::default();
            for node in nodes {
                let next = of(node, rules);
                // One may be the beginning of another.
                if any.first.meets(&next.first) {
                    any.longer.add(&any.inner.clone());
                    any.longer.add(&next.inner);
                }
                if any.nullable != next.nullable {
                    any.longer.add(&any.first.clone());
                    any.longer.add(&next.first);
                }
                any.nullable |= next.nullable;
                any.first.add(&next.first);
                any.inner.add(&next.inner);
                any.longer.add(&next.longer);
            }
            any
        }
        Node::Repeat(node, least, most) => {
            let mut texts = of(node, rules);
            if *most != Some(1) {
                texts = texts.clone().then(&texts);
            }
            if *most != Some(*least) {
                texts.longer.add(&texts.first.clone());
            }
            texts.nullable |= *least == 0;
            texts
        }
    }
}

impl Texts {
    /// Those with others behind them.
    fn then(mut self, next: &Self) -> Self {
        self.inner.add(&next.first);
        self.inner.add(&next.inner);
        if next.nullable {
            self.longer.add(&next.first);
            self.longer.add(&next.longer);
        } else {
            self.longer = next.longer.clone();
        }
        // What could be cut elsewhere may be longer as well.
        if self.nullable {
            self.first.add(&next.first);
        }
        self.nullable &= next.nullable;
        self
    }
}

/// Tells the rules of a node what may come after them: whether that was new to one.
fn spread(node: &Node, after: &Set, texts: &[Texts], follows: &mut [Set]) -> bool {
    match node {
        Node::Text(_) | Node::Class(_) => false,
        Node::Rule(rule) => follows[*rule].add(after),
        Node::Any(nodes) => {
            nodes.iter().fold(false, |grows, node| spread(node, after, texts, follows) | grows)
        }
        Node::All(nodes) => {
            let (mut after, mut grows) = (after.clone(), false);
            for node in nodes.iter().rev() {
                grows |= spread(node, &after, texts, follows);
                let own = of(node, texts);
                if !own.nullable {
                    after = Set::default();
                }
                after.add(&own.first);
            }
            grows
        }
        Node::Repeat(node, ..) => {
            let mut after = after.clone();
            after.add(&of(node, texts).first);
            spread(node, &after, texts, follows)
        }
    }
}

/// Which rules neither come back to themselves nor go to one that does.
fn plain(bodies: &[Node]) -> Vec<bool> {
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); bodies.len()];
    let mut open = vec![0; bodies.len()];
    for (rule, body) in bodies.iter().enumerate() {
        let mut used = Vec::new();
        body.uses(&mut used);
        used.sort_unstable();
        used.dedup();
        open[rule] = used.len();
        used.into_iter().for_each(|used| users[used].push(rule));
    }
    let mut plain = vec![false; bodies.len()];
    let mut found: Vec<usize> = (0..bodies.len()).filter(|&rule| open[rule] == 0).collect();
    while let Some(rule) = found.pop() {
        plain[rule] = true;
        for &user in &users[rule] {
            open[user] -= 1;
            if open[user] == 0 {
                found.push(user);
            }
        }
    }
    plain
}
