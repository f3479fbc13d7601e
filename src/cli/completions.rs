//! `fieldkeep completions`: what the shell needs to complete verbs and options.

use clap::Args;
use clap_complete::Shell;

use super::args;
use super::failure::Failure;
use super::output::print_bytes;

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples, each for every shell that is started afterwards:
  fieldkeep completions bash > ~/.local/share/bash-completion/completions/fieldkeep
  fieldkeep completions zsh  > \"${fpath[1]}/_fieldkeep\"
  fieldkeep completions fish > ~/.config/fish/completions/fieldkeep.fish
In this shell alone: source <(fieldkeep completions bash)")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(
        value_name = "bash|zsh|fish|elvish|powershell",
        hide_possible_values = true
    )]
    shell: Shell,
}

/// Runs the verb.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "fieldkeep", &mut script);
    print_bytes(&script)
}
