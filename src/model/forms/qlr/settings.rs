//! What the settings of a `qlr` checkpoint say of its linears.

use regex::{Regex, RegexBuilder};

use crate::error::{Error, Result};
use crate::format::Config;
use crate::quant::Format;

/// Bytes that one pattern may take when compiled. The time of a match is linear in the name whatever the pattern.
const MOST_OF_A_PATTERN: usize = 1 << 20;

/// How the linears are compressed, by their names.
#[derive(Debug)]
pub(super) struct Settings {
    default: Spec,
    /// Those whose whole name a pattern matches, the first that does.
    modules: Vec<(Regex, Spec)>,
}

/// How a linear is compressed.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) base: Coding,
    pub(super) path: Option<LowRank>,
    pub(super) pre: Vec<Step>,
    pub(super) post: Vec<Step>,
}

/// A low-rank path.
#[derive(Clone, Debug)]
pub(super) struct LowRank {
    pub(super) rank: u32,
    pub(super) l: Coding,
    pub(super) r: Coding,
    pub(super) scale: f32,
}

/// How the numbers of a matrix are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coding {
    pub(super) codec: Codec,
    /// Elements that share a scale; `None` for a whole row.
    pub(super) group: Option<u32>,
    pub(super) zero: Zero,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Codec {
    /// Whole numbers of so many bits.
    Whole(u32),
    /// Points of the lattice E8.
    Lattice,
    /// Floats as they are.
    Floats,
    /// Blocks as in a GGUF file.
    Blocks(Format),
}

/// What is taken from a whole number q before it is multiplied by s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Zero {
    /// The middle of its range.
    Middle,
    /// Nothing: m is added to the product.
    Min,
    /// A zero point in `zeros`.
    Point,
}

/// A transform.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By the vector of this name.
    Mul(String),
    /// In the order of this name.
    Perm(String),
    /// Of blocks of so many elements; `None` for all at once.
    Had(Option<u32>),
}

impl Settings {
    pub(super) fn read(settings: &Config) -> Result<Self> {
        let version = settings.u32("version")?.unwrap_or(1);
        if version != 1 {
            let what = format!("version {version} of the layout is not supported");
            return Err(Error::unsupported(what).at("version").hint("1 is"));
        }
        let default = settings.object("default")?.unwrap_or_default();
        let modules = settings.object("modules")?.unwrap_or_default();
        let module = |(pattern, _): (&str, _)| {
            let own = modules.object(pattern)?.unwrap_or_default();
            let spec =
                Spec::read(&own.or(&default)).map_err(|error| error.at(format!("modules {pattern}")))?;
            let whole = RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(MOST_OF_A_PATTERN)
                .build()
                .map_err(|error| Error::bad_file("the pattern is not sound").at(pattern).caused_by(error))?;
            Ok((whole, spec))
        };
        Ok(Self {
            default: Spec::read(&default).map_err(|error| error.at("default"))?,
            modules: modules.iter().map(module).collect::<Result<_>>()?,
        })
    }

    /// How the linear `name` is compressed.
    pub(super) fn of(&self, name: &str) -> &Spec {
        let own = self.modules.iter().find(|(pattern, _)| pattern.is_match(name));
        own.map_or(&self.default, |(_, spec)| spec)
    }
}

impl Spec {
    fn read(settings: &Config) -> Result<Self> {
        let steps = |key: &str| {
            let steps = settings.array(key)?.unwrap_or_default().iter();
            let read =
                |step: &serde_json::Value| step.as_str().and_then(Step::read).ok_or_else(|| step.clone());
            steps.map(read).collect::<Result<Vec<Step>, _>>().map_err(|step| {
                Error::unsupported(format!("the transform {step} is not supported"))
                    .at(key)
                    .hint("mul:NAME, perm:NAME, had and had:SIZE are")
            })
        };
        Ok(Self {
            base: Coding::read(settings, "base")?,
            path: settings.object("lr")?.map(|path| LowRank::read(&path)).transpose()?,
            pre: steps("pre")?,
            post: steps("post")?,
        })
    }
}

impl LowRank {
    fn read(settings: &Config) -> Result<Self> {
        let rank = settings.u32("rank")?.filter(|&rank| rank > 0);
        Ok(Self {
            rank: rank.ok_or_else(|| Error::bad_file("a low-rank path without a rank").at("rank"))?,
            l: Coding::read(settings, "l")?,
            r: Coding::read(settings, "r")?,
            scale: settings.float("scale")?.unwrap_or(1.0) as f32,
        })
    }
}

impl Coding {
    fn read(settings: &Config, key: &str) -> Result<Self> {
        Self::of(&settings.object(key)?.unwrap_or_default()).map_err(|error| error.at(key))
    }

    fn of(settings: &Config) -> Result<Self> {
        let codec = Codec::of(settings.text("codec")?.unwrap_or("fp16"))?;
        let zero = match (settings.bool("sym")?.unwrap_or(true), settings.text("zero")?.unwrap_or("none")) {
            (true, "none") => Zero::Middle,
            (false, "none") => Zero::Min,
            (false, "u8" | "f16") => Zero::Point,
            (_, other) => {
                return Err(Error::unsupported(format!("zero points {other:?} are not supported"))
                    .at("zero")
                    .hint("none, and where sym is false u8 and f16, are"));
            }
        };
        Ok(Self { codec, group: settings.u32("group")?, zero })
    }
}

impl Codec {
    fn of(name: &str) -> Result<Self> {
        let blocks = || Format::named_in_gguf(name);
        match name {
            "int2" => Ok(Self::Whole(2)),
            "int4" => Ok(Self::Whole(4)),
            "int8" => Ok(Self::Whole(8)),
            "e8p16" => Ok(Self::Lattice),
            "fp16" | "bf16" | "fp32" => Ok(Self::Floats),
            _ => blocks().map(Self::Blocks).ok_or_else(|| {
                Error::unsupported(format!("the codec {name:?} is not supported"))
                    .at("codec")
                    .hint("int2, int4, int8, e8p16, fp16, and the formats of GGUF, such as q4_0, are")
            }),
        }
    }

    /// How the name of the tensor with the numbers ends.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Floats => "",
            Self::Blocks(_) => ".blocks",
            Self::Whole(_) | Self::Lattice => ".codes",
        }
    }
}

impl Step {
    fn read(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None => (text == "had").then_some(Self::Had(None)),
            Some(("mul", name)) => Some(Self::Mul(name.to_owned())),
            Some(("perm", name)) => Some(Self::Perm(name.to_owned())),
            Some(("had", size)) => {
                size.parse().ok().filter(|&size| size > 0).map(|size| Self::Had(Some(size)))
            }
            Some(_) => None,
        }
    }
}
