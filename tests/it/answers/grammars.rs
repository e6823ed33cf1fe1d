//! Expressions, grammars and choices: what they let through, and how they are refused.

use pocketlm::text::{Constraint, Guide, Lexicon};
use pocketlm::{Error, Kind};

use super::schemas::stories;

fn guide(constraint: &Constraint) -> Result<Guide, Error> {
    Lexicon::new(&stories())?.guide(constraint, false)
}

fn told(constraint: &Constraint, yes: &[&str], no: &[&str]) {
    let mut guide = guide(constraint).unwrap_or_else(|error| panic!("{constraint:?}: {error}"));
    for (text, is_in) in yes.iter().map(|text| (text, true)).chain(no.iter().map(|text| (text, false))) {
        assert_eq!(guide.accepts(text.as_bytes()).unwrap(), is_in, "{text:?} by {constraint:?}");
    }
}

fn gbnf(grammar: &str) -> Constraint {
    Constraint::Gbnf(grammar.into())
}

#[test]
fn an_expression_matches_all_of_the_text() {
    let regex = |regex: &str| Constraint::Regex(regex.into());
    told(&regex("[0-9]{3}-[a-z]+"), &["123-a", "000-xyz"], &["123-", "x123-a", "123-a1", ""]);
    told(&regex("a/b|\"c\"|é+"), &["a/b", "\"c\"", "éé"], &["a", "c", "e"]);
    told(&regex(" lead"), &[" lead"], &["lead"]);
}

#[test]
fn a_choice_is_one_of_them_and_no_beginning_hides_another() {
    let choice = Constraint::Choice(
        ["yes", "yes, but", "a.c", "(no)", "line\nbreak", "q\"q/\\"].map(Into::into).into(),
    );
    told(
        &choice,
        &["yes", "yes, but", "a.c", "(no)", "line\nbreak", "q\"q/\\"],
        &["", "ye", "yes,", "abc", "no", "yes yes"],
    );
}

#[test]
fn gbnf_is_read_as_llama_cpp_reads_it() {
    // Literals that are beginnings of others: no lexeme may hide a longer one.
    told(&gbnf("root ::= \"ab\" | \"a\" \"bc\""), &["ab", "abc"], &["a", "abcc"]);
    told(&gbnf("root ::= [a-z]* \"x\" # a comment\n"), &["x", "axx"], &["", "xa"]);
    told(
        &gbnf("root ::= item+\nitem ::= \"- \" [^\\n]+ \"\\n\""),
        &["- a\n", "- a\n- bc\n"],
        &["- \n", "- a"],
    );
    told(&gbnf("root ::= (\"a\" | b){2,3}\nb ::= \"b\"?"), &["aa", "ab", "bbb", ""], &["aaaa", "c"]);
    told(&gbnf("root ::= . [^a] [\\]\\-x-z] \"\\x41\\u00e9\""), &["qb]Aé", "\ny-Aé"], &["qa]Aé", "qbwAé"]);
    let list = "root ::= list
        list ::= \"[\" ws (value (\",\" ws value)*)? ws \"]\"
        value ::= list |
           [0-9]+ ws
        ws ::= [ \\t]*";
    told(&gbnf(list), &["[]", "[1]", "[1, [22 ,3],[] ]", "[ ]"], &["", "[", "[1,]", "[a]", "[1]]"]);
}

/// The grammar of arithmetic in llama.cpp's documentation, said anew.
#[test]
fn a_grammar_that_comes_back_to_itself() {
    let sum = "root ::= (expr \"=\" ws term \"\\n\")+
expr ::= term ([-+*/] term)*
term ::= ident | num | \"(\" ws expr \")\" ws
ident ::= [a-z] [a-z0-9_]* ws
num ::= [0-9]+ ws
ws ::= [ \\t\\n]*";
    told(&gbnf(sum), &["1+2=3\n", "(a-b_1) *2 =x\n", "1=1\n2=2\n"], &["1+=3\n", "1=2", "(1=1\n"]);
    let lark = Constraint::Lark("start: \"(\" start \")\" | /[a-c]+/ %lark {}".replace(" %lark {}", ""));
    told(&lark, &["a", "((abc))"], &["(a", "d", "()"]);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let kinds = |constraint: Constraint| match guide(&constraint) {
        Ok(_) => panic!("{constraint:?} was accepted"),
        Err(error) => error,
    };
    for grammar in [
        "",
        "root = \"a\"",
        "root ::= \"a",
        "root ::= [a",
        "root ::= [b-a]",
        "root ::= (\"a\"",
        "root ::= a",
        "a ::= \"a\"",
        "root ::= \"a\"{3,2}",
        "root ::= \"a\"{99999999}",
        "root ::= \"\\q\"",
        "root ::= \"\\uD800\"",
        "root ::= []",
        "root ::= \"a\"\nroot ::= \"b\"",
        "root ::= \"a\" )",
    ] {
        let error = kinds(gbnf(grammar));
        assert_eq!(error.kind(), Kind::InvalidArgument, "{grammar:?}: {error}");
    }
    assert_eq!(kinds(gbnf("root ::= <think> \"a\"")).kind(), Kind::Unsupported);
    assert_eq!(kinds(Constraint::Regex("(".into())).kind(), Kind::InvalidArgument);
    assert_eq!(kinds(Constraint::Regex("a(?=b)".into())).kind(), Kind::Unsupported);
    assert_eq!(kinds(Constraint::Choice(Vec::new())).kind(), Kind::InvalidArgument);
    assert_eq!(kinds(Constraint::Lark("nonsense".into())).kind(), Kind::InvalidArgument);
    let place = kinds(gbnf("root ::= \"a\"\n\nb ::= [")).to_string();
    assert!(place.contains("line 3"), "{place}");
}

/// A rule that only comes back to itself has no text.
#[test]
fn what_has_no_text_ends_with_an_error() {
    let mut guide = guide(&gbnf("root ::= root")).unwrap();
    assert_eq!(guide.prepare().unwrap_err().kind(), Kind::Unsupported);
}

/// Hostile sizes end in errors, in bounded time.
#[test]
fn what_is_too_large_is_refused() {
    let begun = std::time::Instant::now();
    let deep = |open: &str, close: &str, n: usize| open.repeat(n) + "\"a\"" + &close.repeat(n);
    let chain: String = (0..1900).map(|i| format!("r{i} ::= r{} \"a\"\n", i + 1)).collect();
    for (constraint, works) in [
        (gbnf(&format!("root ::= {}", deep("(", ")", 100_000))), false),
        (gbnf(&format!("root ::= {}", deep("(", ")", 500))), true),
        (Constraint::Lark(format!("start: {}", deep("(", ")", 100_000))), false),
        (Constraint::Regex("(".repeat(900) + "a" + &")".repeat(900)), false),
        (Constraint::Regex("x".repeat(300_000)), false),
        (Constraint::Regex("((a{1000}){1000}){1000}".into()), true),
        (Constraint::Choice(vec!["y".repeat(300_000)]), false),
        (gbnf(&format!("root ::= r0\n{chain}r1900 ::= \"b\"")), true),
        (gbnf("root ::= (((\"a\" | \"b\"){10000}){10000}){10000}"), true),
    ] {
        let outcome = guide(&constraint);
        let text: String = format!("{constraint:?}").chars().take(60).collect();
        match outcome {
            Ok(mut guide) => {
                assert!(works, "{text} works");
                guide.prepare().unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            Err(error) => {
                assert!(!works, "{text}: {error}");
                let kind = error.kind();
                assert!(matches!(kind, Kind::InvalidArgument | Kind::Unsupported), "{text}: {error:?}");
            }
        }
    }
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}
