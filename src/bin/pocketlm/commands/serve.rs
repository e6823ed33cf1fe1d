//! `serve`: answers programs of this machine over HTTP.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pocketlm::{Error, LoadOptions, Result};

use crate::args::{
    self, AdapterArgs, ContextArgs, DeviceArgs, DraftArgs, ModelArgs, Pool, SamplingArgs, VerifyArgs,
};
use crate::serve::{self, Keys, Limits, Settings};
use crate::{load, models};

/// Answers programs over HTTP, as OpenAI's service does, and has a page to chat with
///
/// It listens to this machine alone unless --host says otherwise, which takes an API key. docs/server.md tells what it answers.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// What clients call the model; can be given several times [default: its name, or that of its file]
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// The address to listen on; one that others can reach takes --api-key
    #[arg(long, default_value = "127.0.0.1", env = "POCKETLM_HOST", hide_env_values = true)]
    host: String,
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080, env = "POCKETLM_PORT", hide_env_values = true)]
    port: u16,
    /// What clients have to send as `Authorization: Bearer KEY`; can be given several times, separated by commas in the
    /// environment. Others on this machine may see it here, and not in --api-key-file
    #[arg(long, value_name = "KEY", env = "POCKETLM_API_KEY", hide_env_values = true, value_delimiter = ',')]
    api_key: Vec<String>,
    /// A file with such keys, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Pages of this origin may ask too, such as https://example.org, or * for those of all; can be given several times
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Requests that are answered at the same time, each with a context of its own
    #[arg(long, visible_alias = "slots", value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
    /// Requests that wait for a slot, at most
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: usize,
    /// Connections, at most
    #[arg(long, value_name = "N", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// The most bytes of a request, in KiB
    #[arg(long, value_name = "KIB", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_body: u32,
    /// Seconds that an answer may take, its time in the queue included
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    timeout: Duration,
    /// Seconds that a client may take to send a request, or a connection may idle
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    read_timeout: Duration,
    /// Seconds for which a client may take nothing of what is sent to it
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    write_timeout: Duration,
    /// Seconds that answers under way may take when the server is ended
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    grace: Duration,
    /// How the rows of a text become its embedding
    #[arg(long, value_enum, default_value_t = Pool::Mean)]
    pooling: Pool,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    draft: DraftArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Rows of logits that are computed at once at least: embeddings are read so many at a time.
const OUTPUTS: u32 = 8;

fn seconds(text: &str) -> std::result::Result<Duration, &'static str> {
    match text.parse() {
        Ok(seconds) if (0.001..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds, from 0.001 to 1000000, would work"),
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let addresses = addresses(&args.host, args.port)?;
    let keys = keys(args)?;
    if keys.is_empty()
        && let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback())
    {
        let what = format!("others could use the model at {open}, and there is no key to ask them for");
        return Err(Error::invalid(what)
            .hint("give --api-key-file or --api-key, or leave --host out")
            .into());
    }
    let asked = args.model.model.as_deref();
    let options = args.draft.within(args.verify.on(args.adapters.beside(args.context.options()))?);
    let sessions = args.parallel;
    let options = LoadOptions { sessions, outputs: options.outputs.max(sessions).max(OUTPUTS), ..options };
    let (engine, model) = load::load_with_engine(&args.model, &args.device, &options)?;
    let mut defaults = args.sampling.options(None, &models::recommended(asked));
    defaults.draft = load::draft(&args.draft, &args.device)?;
    let names =
        if args.alias.is_empty() { vec![name(asked, &model.info().path)] } else { args.alias.clone() };
    let settings = Settings {
        addresses,
        names,
        keys,
        origins: args.cors.iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect(),
        slots: args.parallel as usize,
        queue: args.queue,
        defaults,
        pooling: args.pooling.into(),
        limits: Limits {
            connections: args.connections as usize,
            body: args.max_body as usize * 1024,
            head: args.read_timeout,
            read: args.read_timeout,
            write: args.write_timeout,
            answer: args.timeout,
            grace: args.grace,
        },
    };
    serve::run(&engine, model, &settings)
}

fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::invalid(format!("{host} has no address"))),
        Err(error) => {
            Err(Error::invalid(format!("{host} is no address: {error}")).hint("127.0.0.1 would work"))
        }
    }
}

fn keys(given: &Args) -> Result<Keys> {
    let text = match &given.api_key_file {
        None => String::new(),
        Some(path) => args::read(path)?,
    };
    let in_file: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let flags: Vec<&str> = given.api_key.iter().map(|key| key.trim()).collect();
    if flags.iter().any(|key| key.is_empty()) || (given.api_key_file.is_some() && in_file.is_empty()) {
        return Err(Error::invalid("an API key is empty").hint("give at least a letter, better 32 at random"));
    }
    Ok(Keys::new(flags.into_iter().chain(in_file)))
}

/// What a model is called: by its name where it has one here, else by that of its file.
fn name(asked: Option<&str>, path: &Path) -> String {
    let asked = asked.unwrap_or(models::DEFAULT);
    if !Path::new(asked).exists() {
        return asked.to_owned();
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_suffix(".gguf").map_or(name.clone(), str::to_owned)
}
