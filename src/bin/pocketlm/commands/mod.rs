//! The list of commands. To add one: a file here with its `Args` (whose doc comment is the help text) and
//! `run`, and a line in the list. Flags that several commands know stand in `args.rs`.

macro_rules! commands {
    ($($(#[$when:meta])* $variant:ident => $module:ident,)*) => {
        $($(#[$when])* mod $module;)*

        #[derive(clap::Subcommand)]
        pub(crate) enum Command {
            $($(#[$when])* $variant($module::Args),)*
        }

        impl Command {
            pub(crate) fn run(self) -> anyhow::Result<()> {
                match self {
                    $($(#[$when])* Command::$variant(args) => $module::run(&args),)*
                }
            }
        }
    };
}

commands! {
    Chat => chat,
    Generate => generate,
    #[cfg(feature = "serve")]
    Serve => serve,
    Score => score,
    Embed => embed,
    Perplexity => perplexity,
    Tokenize => tokenize,
    Inspect => inspect,
    Fit => fit,
    Devices => devices,
    Doctor => doctor,
    Bench => bench,
    Quantize => quantize,
    Synth => synth,
    Manifest => manifest,
    Pull => pull,
    Models => models,
    Completions => completions,
    Man => man,
}
