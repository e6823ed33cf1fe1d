//! What a person chose, and what is made of it for the engine. Kept in a file; what a file lacks has its default.

use std::path::PathBuf;

use pocketlm::{Constraint, Error, GenerateOptions, KvType, LoadOptions, Result, Sampling, models};
use serde::{Deserialize, Serialize};

/// All that is kept between two runs, beside the conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Light, dark, or as the system.
    pub theme: Theme,
    /// 1 is the system's own scale.
    pub zoom: f32,
    /// Where to compute.
    pub place: Place,
    /// How answers are made.
    pub asked: Asked,
    /// How models are loaded.
    pub load: Load,
    /// Whether a GPU leaves the window its frames, and the milliseconds that a frame may wait.
    pub keep_frames: bool,
    /// See `keep_frames`.
    pub budget_ms: f64,
    /// Model files that were opened from elsewhere, the latest first.
    pub opened: Vec<PathBuf>,
    /// Width, height, and where known left and top of the window, in points.
    pub window: Option<Window>,
    /// Whether the meters are shown.
    pub shows_meters: bool,
    /// Whether the list of conversations is shown.
    pub shows_list: bool,
}

/// A window's place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Width and height in points.
    pub size: [f32; 2],
    /// Left and top in points, where the system tells.
    pub at: Option<[f32; 2]>,
}

/// Light or dark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the system has it.
    #[default]
    System,
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// Where to compute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The window's GPU where it is a real one, else what the engine finds.
    #[default]
    Auto,
    /// The device that draws the window.
    Window,
    /// A device of its own, by name.
    Gpu(String),
    /// The CPU.
    Cpu,
}

/// How answers are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// What a new conversation tells the model before all else.
    pub system: String,
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// 1 changes nothing.
    pub repeat_penalty: f32,
    /// None draws another each time.
    pub seed: Option<u64>,
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// Whether a conversation that outgrows the context goes on with its beginning and its latest part.
    pub slides: bool,
    /// Whether the answer is held to `schema`.
    pub is_json: bool,
    /// A JSON schema.
    pub schema: String,
}

/// How models are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Positions of a session; none takes what the engine does.
    pub context: Option<u32>,
    /// How keys and values are stored.
    pub cache: Cache,
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// 16 bits.
    #[default]
    F16,
    /// 8 bits.
    Q8,
    /// 4 bits.
    Q4,
}

/// A schema to begin with.
pub const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "title": { "type": "string" },
    "rating": { "type": "integer", "minimum": 1, "maximum": 5 }
  },
  "required": ["title", "rating"]
}"#;

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: Theme::System,
            zoom: 1.0,
            place: Place::Auto,
            asked: Asked::default(),
            load: Load::default(),
            keep_frames: true,
            budget_ms: 4.0,
            opened: Vec::new(),
            window: None,
            shows_meters: true,
            shows_list: true,
        }
    }
}

impl Settings {
    /// What of a file makes no sense is as if nobody had chosen.
    pub fn mended(mut self) -> Self {
        let is_size = |size: f32| size.is_finite() && (200.0..=20_000.0).contains(&size);
        self.zoom = if self.zoom.is_finite() { self.zoom.clamp(0.5, 3.0) } else { 1.0 };
        self.budget_ms = if self.budget_ms.is_finite() { self.budget_ms.clamp(1.0, 50.0) } else { 4.0 };
        self.window = self.window.filter(|window| window.size.into_iter().all(is_size));
        self.opened.truncate(12);
        self
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            system: String::new(),
            temperature: 0.7,
            top_k: 0,
            top_p: 0.9,
            min_p: 0.0,
            repeat_penalty: 1.0,
            seed: None,
            max_tokens: 1024,
            slides: false,
            is_json: false,
            schema: SCHEMA.into(),
        }
    }
}

impl Asked {
    /// With the sampling that the makers of the model called `name` recommend, where they are known; the rest as it is.
    pub fn reset(&mut self, name: Option<&str>) {
        let plain = Self::default();
        let known = name.and_then(models::by_name).map(models::Known::sampling).unwrap_or_default();
        let Self { system, slides, is_json, schema, .. } = std::mem::take(self);
        let temperature = known.temperature.unwrap_or(plain.temperature);
        let top_p = known.top_p.unwrap_or(plain.top_p);
        *self = Self { system, slides, is_json, schema, temperature, top_p, ..plain };
    }

    /// For the engine.
    ///
    /// # Errors
    /// `InvalidArgument` where the schema is no JSON. Whether it can be kept is seen when the answer begins.
    pub fn options(&self) -> Result<GenerateOptions> {
        let Self { temperature, top_k, top_p, min_p, repeat_penalty, seed, max_tokens, .. } = *self;
        let sampling = Sampling {
            temperature: Some(temperature),
            top_k: Some(top_k),
            top_p: Some(top_p),
            min_p: Some(min_p),
            repeat_penalty: Some(repeat_penalty),
            seed,
            ..Sampling::default()
        };
        let constraint = self.is_json.then(|| self.constraint()).transpose()?;
        Ok(GenerateOptions {
            max_tokens: Some(max_tokens),
            sampling,
            constraint,
            ..GenerateOptions::default()
        })
    }

    /// What is wrong with the schema as a text, while it is being written.
    pub fn schema_error(&self) -> Option<String> {
        self.constraint().err().map(|error| error.to_string())
    }

    fn constraint(&self) -> Result<Constraint> {
        if self.schema.trim().is_empty() {
            return Ok(Constraint::JsonObject);
        }
        let schema = serde_json::from_str(&self.schema)
            .map_err(|error| Error::invalid(format!("the schema is not JSON: {error}")))?;
        Ok(Constraint::JsonSchema(schema))
    }
}

impl Load {
    /// For the engine: a conversation, a branch of it, and room for another.
    pub fn options(&self) -> LoadOptions {
        let kv_type = match self.cache {
            Cache::F16 => None,
            Cache::Q8 => Some(KvType::Q8),
            Cache::Q4 => Some(KvType::Q4),
        };
        LoadOptions { context: self.context, kv_type, sessions: 3, ..LoadOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_day_is_read() {
        let settings: Settings =
            serde_json::from_str(r#"{"zoom": 1e9, "new": 1, "window": {"size": [0, 5]}}"#).unwrap();
        let settings = settings.mended();
        assert_eq!((settings.zoom, settings.window, settings.budget_ms), (3.0, None, 4.0));
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
    }

    #[test]
    fn a_schema_that_is_none_is_said_to_be() {
        let mut asked = Asked { is_json: true, ..Asked::default() };
        assert!(asked.options().unwrap().constraint.is_some() && asked.schema_error().is_none());
        asked.schema = "{".into();
        assert!(asked.options().unwrap_err().to_string().contains("line 1"));
        asked.is_json = false;
        assert!(asked.options().unwrap().constraint.is_none(), "it is not asked for");
    }

    #[test]
    fn makers_are_listened_to() {
        let mut asked = Asked { temperature: 2.0, system: "Be brief.".into(), ..Asked::default() };
        asked.reset(Some(models::DEFAULT));
        assert_eq!((asked.temperature, asked.system.as_str()), (0.2, "Be brief."));
        asked.reset(None);
        assert_eq!(asked.temperature, Asked::default().temperature);
    }
}
