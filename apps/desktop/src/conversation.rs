//! A conversation is a tree: whoever edits a message or asks for another answer grows a branch beside the old one. Nothing that
//! was said is forgotten; what is shown is the path from the root to one leaf.

use serde::{Deserialize, Serialize};

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// How a message ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// By itself.
    #[default]
    Whole,
    /// It is being written.
    Writing,
    /// The program ended while it was being written.
    Interrupted,
    /// The person stopped it.
    Stopped,
    /// The limit of tokens or the context was full.
    Length,
    /// What went wrong.
    Failed(String),
}

/// What is known of an answer when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Those that were still computed from before.
    pub cached_tokens: u32,
    /// Tokens of the answer.
    pub tokens: u32,
    /// From the request to the first token, in seconds.
    pub first_token: f64,
    /// Tokens per second, after the first.
    pub rate: f64,
}

/// A message and its place in the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The message before; none where the conversation begins with it.
    pub parent: Option<usize>,
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub text: String,
    /// How it ended.
    #[serde(default)]
    pub end: End,
    /// What is known of it, where it is an answer.
    #[serde(default)]
    pub facts: Option<Facts>,
}

/// A conversation; a node is named by its place in `nodes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The name of its folder.
    pub id: String,
    /// What the list calls it.
    pub title: String,
    /// What the model is told before all else.
    #[serde(default)]
    pub system: String,
    /// Each after its parent.
    pub nodes: Vec<Node>,
    /// The last message of the branch that is shown.
    pub leaf: Option<usize>,
    /// Seconds since 1970 when it last changed.
    #[serde(default)]
    pub changed: u64,
}

impl Conversation {
    /// An empty one.
    pub fn new(id: String, system: String) -> Self {
        Self { id, system, ..Self::default() }
    }

    /// Whether what was read of a file holds together: each node after its parent, the leaf there, a name that is no path.
    pub fn is_sound(&self) -> bool {
        let is_after = |(at, node): (usize, &Node)| node.parent.is_none_or(|parent| parent < at);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        self.nodes.iter().enumerate().all(is_after)
            && self.leaf.is_none_or(|leaf| leaf < self.nodes.len())
            && !self.id.is_empty()
            && self.id.chars().all(is_name)
    }

    /// What the list calls it, where it has no title yet.
    pub fn name(&self) -> &str {
        if self.title.is_empty() { "New conversation" } else { &self.title }
    }

    /// From the first message to `node`.
    pub fn path_to(&self, node: usize) -> Vec<usize> {
        let mut path: Vec<usize> =
            std::iter::successors(Some(node), |&at| self.nodes.get(at)?.parent).collect();
        path.reverse();
        path
    }

    /// The branch that is shown.
    pub fn path(&self) -> Vec<usize> {
        self.leaf.map(|leaf| self.path_to(leaf)).unwrap_or_default()
    }

    /// The messages that stand at the same place as `node`, oldest first, itself included.
    pub fn siblings(&self, node: usize) -> Vec<usize> {
        let Node { parent, role, .. } = &self.nodes[node];
        let stands = |at: &usize| self.nodes[*at].parent == *parent && self.nodes[*at].role == *role;
        (0..self.nodes.len()).filter(stands).collect()
    }

    /// Shows the branch through `node`: down to its newest leaf.
    pub fn choose(&mut self, node: usize) {
        let mut leaf = node;
        // Children stand behind their parents.
        while let Some(child) =
            (leaf + 1..self.nodes.len()).rev().find(|&at| self.nodes[at].parent == Some(leaf))
        {
            leaf = child;
        }
        self.leaf = Some(leaf);
    }

    /// Says something after the leaf, and makes room for the answer: its node.
    pub fn say(&mut self, text: &str) -> usize {
        self.ask(self.leaf, text)
    }

    /// Says something else in place of `node`, which stays beside it: the node of the answer.
    pub fn edit(&mut self, node: usize, text: &str) -> usize {
        self.ask(self.nodes[node].parent, text)
    }

    /// Makes room for another answer beside `node`: its node.
    pub fn retry(&mut self, node: usize) -> usize {
        self.grow(self.nodes[node].parent, Role::Assistant, String::new(), End::Writing)
    }

    /// What was said before `node`, as roles and texts.
    pub fn messages_before(&self, node: usize) -> Vec<(Role, String)> {
        let mut path = self.path_to(node);
        path.pop();
        path.into_iter().map(|at| (self.nodes[at].role, self.nodes[at].text.clone())).collect()
    }

    /// Answers that were being written when the program ended are so no more.
    pub fn interrupt(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.end == End::Writing) {
            node.end = End::Interrupted;
        }
    }

    /// The branch that is shown as Markdown.
    pub fn to_markdown(&self) -> String {
        let said = |at: usize| {
            let Node { role, text, .. } = &self.nodes[at];
            let who = if *role == Role::User { "You" } else { "Model" };
            format!("**{who}**\n\n{}\n", text.trim())
        };
        self.path().into_iter().map(said).collect::<Vec<_>>().join("\n")
    }

    fn ask(&mut self, after: Option<usize>, text: &str) -> usize {
        if self.title.is_empty() {
            self.title = title(text);
        }
        let question = self.grow(after, Role::User, text.to_owned(), End::Whole);
        self.grow(Some(question), Role::Assistant, String::new(), End::Writing)
    }

    fn grow(&mut self, parent: Option<usize>, role: Role, text: String, end: End) -> usize {
        self.nodes.push(Node { parent, role, text, end, facts: None });
        let at = self.nodes.len() - 1;
        self.leaf = Some(at);
        at
    }
}

/// The first words of the first message.
fn title(text: &str) -> String {
    const MOST: usize = 42;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.chars().count() <= MOST {
        return line.to_owned();
    }
    let short: String = line.chars().take(MOST).collect();
    let words = short.rsplit_once(' ').map_or(short.as_str(), |(words, _)| words);
    format!("{words}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk() -> Conversation {
        let mut talk = Conversation::new("a".into(), String::new());
        for (text, answer) in [("one", "1"), ("two", "2")] {
            let at = talk.say(text);
            talk.nodes[at].text = answer.into();
            talk.nodes[at].end = End::Whole;
        }
        talk
    }

    fn said(talk: &Conversation) -> Vec<&str> {
        talk.path().into_iter().map(|at| talk.nodes[at].text.as_str()).collect()
    }

    #[test]
    fn branches_stand_beside_each_other() {
        let mut talk = talk();
        assert_eq!(said(&talk), ["one", "1", "two", "2"]);
        let other = talk.retry(1);
        assert_eq!((said(&talk), talk.siblings(other)), (vec!["one", ""], vec![1, 4]));
        talk.choose(1);
        assert_eq!(said(&talk), ["one", "1", "two", "2"], "the old branch is whole");
        let edited = talk.edit(2, "three");
        assert_eq!(said(&talk), ["one", "1", "three", ""]);
        assert_eq!(talk.siblings(talk.path()[2]), [2, 5]);
        let before: Vec<_> = talk.messages_before(edited).into_iter().map(|(_, text)| text).collect();
        assert_eq!(before, ["one", "1", "three"]);
        assert!(talk.is_sound());
    }

    #[test]
    fn the_first_question_can_be_another() {
        let mut talk = talk();
        let answer = talk.edit(0, "zero");
        assert_eq!(talk.messages_before(answer), [(Role::User, "zero".to_owned())]);
        assert_eq!(talk.siblings(talk.path()[0]), [0, 4]);
    }

    #[test]
    fn files_that_lie_are_seen() {
        let lies: &[fn(&mut Conversation)] = &[
            |talk| talk.nodes[0].parent = Some(2),
            |talk| talk.nodes[1].parent = Some(1),
            |talk| talk.leaf = Some(9),
            |talk| talk.id = "../elsewhere".into(),
            |talk| talk.id.clear(),
        ];
        for lie in lies {
            let mut talk = talk();
            lie(&mut talk);
            assert!(!talk.is_sound(), "{talk:?}");
        }
    }

    #[test]
    fn titles_are_short_and_whole_words() {
        assert_eq!(title("\n  Why is the sky blue?\nSay it."), "Why is the sky blue?");
        let long = title("Explain to me in detail how a compiler turns a program into machine code");
        assert!(long.chars().count() <= 43 && long.ends_with('…'), "{long}");
    }
}
