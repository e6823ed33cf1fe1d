//! A template's source to instructions that stay inside the limits.

use minijinja::machinery::{Instruction, Instructions, Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

use super::limits::name;

/// The longest template, in bytes: minijinja counts columns in 16 bits. The longest in use have some 20 KB.
const MAX_SOURCE: usize = u16::MAX as usize;

/// The longest tag, in tokens: compiling one takes the square of it. The longest in use have some 300.
const MAX_TAG: usize = 2000;

/// Names that Python finds on a `dict` before its keys.
const DICT_METHODS: &[&str] = &[
    "items",
    "keys",
    "values",
    "get",
    "pop",
    "update",
    "copy",
    "clear",
    "setdefault",
    "popitem",
    "fromkeys",
];

/// The source as minijinja can compile it: without `{% generation %}` blocks, which only mark text for training,
/// and without constant products, which it would multiply out before any limit counts.
pub(super) fn prepare(source: &str, syntax: &SyntaxConfig) -> Result<String, Error> {
    fits(source)?;
    let source = without_generation_blocks(source);
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    let mut after_operand = false;
    let mut in_tag = 0;
    for token in tokenize(&source, false, syntax.clone()) {
        let (token, span) = token?;
        in_tag = match token {
            Token::VariableStart | Token::BlockStart | Token::TemplateData(_) => 0,
            _ => in_tag + 1,
        };
        if in_tag > MAX_TAG {
            let what = format!("a tag in line {} has more than {MAX_TAG} tokens", span.start_line);
            return Err(Error::new(ErrorKind::SyntaxError, what));
        }
        if matches!(token, Token::Mul) && after_operand {
            let at = span.start_offset as usize;
            out.push_str(source.get(copied..at).unwrap_or_default());
            out.push_str("* ");
            out.push_str(name::ONE);
            copied = at;
        }
        after_operand = matches!(
            token,
            Token::Ident(_)
                | Token::Str(_)
                | Token::String(_)
                | Token::Int(_)
                | Token::Int128(_)
                | Token::Float(_)
                | Token::BracketClose
                | Token::ParenClose
                | Token::BraceClose
        );
    }
    out.push_str(&source[copied..]);
    fits(&out)?;
    Ok(out)
}

fn fits(source: &str) -> Result<(), Error> {
    if source.len() <= MAX_SOURCE {
        return Ok(());
    }
    let what = format!("the template has {} bytes; at most {MAX_SOURCE} work", source.len());
    Err(Error::new(ErrorKind::SyntaxError, what))
}

fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[..end];
        match inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => out.push_str(&inner.replace("generation", "if true")),
            "endgeneration" => out.push_str(&inner.replace("endgeneration", "endif")),
            _ => continue,
        }
        rest = &tag[end..];
    }
    out + rest
}

/// The same instructions with calls to the limits between them.
pub(super) fn limited<'a>(code: &Instructions<'a>) -> Result<Instructions<'a>, Error> {
    let old = || (0..).map_while(|at| code.get(at).map(|instruction| (at, instruction)));
    // Where each instruction begins in the new code.
    let mut starts = Vec::new();
    let mut length = 0;
    for (_, instruction) in old() {
        starts.push(length);
        length += replacement(instruction)?.len() as u32;
    }
    starts.push(length);
    let moved = |target: u32| starts.get(target as usize).copied().unwrap_or(length);
    let mut new = Instructions::new(code.name(), code.source());
    for (at, instruction) in old() {
        for mut instruction in replacement(instruction)? {
            match &mut instruction {
                Instruction::Iterate(target)
                | Instruction::Jump(target)
                | Instruction::JumpIfFalse(target)
                | Instruction::JumpIfFalseOrPop(target)
                | Instruction::JumpIfTrueOrPop(target)
                | Instruction::BuildMacro(_, target, _) => *target = moved(*target),
                _ => {}
            }
            match (code.get_span(at), code.get_line(at)) {
                (Some(span), _) => new.add_with_span(instruction, span),
                (None, Some(line)) => new.add_with_line(instruction, u16::try_from(line).unwrap_or(u16::MAX)),
                (None, None) => new.add(instruction),
            };
        }
    }
    Ok(new)
}

fn replacement<'a>(instruction: &Instruction<'a>) -> Result<Vec<Instruction<'a>>, Error> {
    use Instruction as I;
    let same = instruction.clone();
    let call = |name, arguments| I::CallFunction(name, Some(arguments));
    let text = |text: &str| I::LoadConst(Value::from(text));
    Ok(match *instruction {
        // Raw text goes through the formatter, which counts it.
        I::EmitRaw(raw) => vec![text(raw), I::Emit],
        I::StringConcat => vec![call(name::CONCAT, 2)],
        I::Add => vec![call(name::OPERANDS, 2), I::UnpackList(2), same, call(name::ADMIT, 1)],
        I::Mul => vec![call(name::FACTORS, 2), I::UnpackList(2), same, call(name::ADMIT, 1)],
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte | I::In | I::CompareAndPreserve(_) => {
            vec![call(name::OPERANDS, 2), I::UnpackList(2), same]
        }
        I::ApplyFilter(filter, Some(arguments), _) => vec![text(filter), call(name::FILTER, arguments + 1)],
        I::PerformTest(test, Some(arguments), _) => vec![text(test), call(name::TEST, arguments + 1)],
        I::ApplyFilter(..) | I::PerformTest(..) | I::UnpackLists(_) => {
            return Err(Error::new(
                ErrorKind::SyntaxError,
                "arguments in a list (`*args`) are not supported",
            ));
        }
        I::CallBlock(_) | I::LoadBlocks | I::Include(_) | I::ExportLocals | I::FastSuper => {
            return Err(Error::new(
                ErrorKind::SyntaxError,
                "a chat template stands alone: no blocks, no includes",
            ));
        }
        I::GetAttr(attribute) if DICT_METHODS.contains(&attribute) => {
            vec![text(attribute), call(name::ATTRIBUTE, 2)]
        }
        I::Slice => vec![call(name::SLICED, 4), I::UnpackList(4), same, call(name::ADMIT, 1)],
        I::SetAttr(_) => vec![I::Swap, call(name::STORE, 1), I::Swap, same],
        I::CallFunction(..)
        | I::CallMethod(..)
        | I::CallObject(_)
        | I::BuildList(_)
        | I::BuildTuple(_)
        | I::BuildMap(_) => vec![same, call(name::ADMIT, 1)],
        _ => vec![same],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_keep_their_whitespace_control() {
        let source = "a{%- generation -%}b{% endgeneration+%}{% if generation %}{{ '{% x' }}";
        assert_eq!(
            without_generation_blocks(source),
            "a{%- if true -%}b{% endif+%}{% if generation %}{{ '{% x' }}"
        );
    }

    #[test]
    fn products_are_never_constant() {
        let prepared = |source| prepare(source, &SyntaxConfig::default()).unwrap();
        assert_eq!(prepared("*{{ 'a' * 9 ** 2 }}"), "*{{ 'a' * pocketlm_one* 9 ** 2 }}");
        assert_eq!(prepared("{{ f(*a, **b) }}"), "{{ f(*a, **b) }}");
        assert!(prepare(&"x".repeat(MAX_SOURCE + 1), &SyntaxConfig::default()).is_err());
    }
}
