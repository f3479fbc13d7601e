//! placeholder
use super::failure::*;
/// Demo.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  fieldkeep demo")]
pub(crate) struct DemoArgs {}
pub(crate) async fn run(_: DemoArgs) -> Result<(), Failure> {
    Ok(())
}
