//! Lists, up to a limit.

use clap::Args;
use fieldkeep_client::Pages;

use super::failure::Failure;

/// How much of a list is shown.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LimitArgs {
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
}

/// The first of a list, up to the limit; says on standard error if there are more.
pub(crate) async fn collect<T>(
    pages: Pages<T>,
    limit: &LimitArgs,
    doing: &str,
) -> Result<Vec<T>, Failure> {
    let limit = limit.limit as usize;
    let mut pages = pages.page_size(limit.min(1_000) as u32);
    let mut all: Vec<T> = Vec::new();
    let failed = |error| Failure::from(error).while_doing(format_args!("cannot {doing}"));
    while let Some(page) = pages.next_page().await.map_err(failed)? {
        all.extend(page);
        if all.len() >= limit {
            let more = all.len() > limit
                || pages
                    .next_page()
                    .await
                    .map_err(failed)?
                    .is_some_and(|page| !page.is_empty());
            if more {
                eprintln!("note: only the first {limit} are shown; show more with --limit");
            }
            all.truncate(limit);
            break;
        }
    }
    Ok(all)
}
