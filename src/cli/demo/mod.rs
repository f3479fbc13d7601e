//! `fieldkeep demo`: the main job from end to end, in one command that leaves nothing behind.
//!
//! `world` is the service, its directory and its clients; `story` is what happens, step by step, and `closing` its end; `scene` is how it looks.

mod audited;
mod closing;
mod files;
mod scene;
mod story;
mod world;

use std::time::Instant;

use clap::Args;

use super::failure::Failure;
use scene::Scene;
use world::World;

/// See all of it work, on this machine alone: in one command, in under a minute
///
/// Starts a service on free loopback ports with a data directory in a temporary place, encrypts a file of synthetic
/// customers over mutual TLS, shows who can read it and who cannot, rotates the key, re-encrypts, shows the audit records
/// of what just happened, and removes everything.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fieldkeep demo")]
pub(crate) struct DemoArgs {}

/// Runs the verb. Dropped before its end, it stops the service and removes everything, too.
pub(crate) async fn run(_: DemoArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let scene = Scene::new();
    scene.title("Fieldkeep demo")?;
    scene.say("A real service, on this machine alone. Everything below is checked: if something is not as it says, the demo fails.")?;
    let world = World::start(&scene).await?;
    let outcome = story::tell(&world, &scene).await;
    // Also after a failure: nothing stays.
    let ended = world.end(&scene).await;
    outcome?;
    ended?;
    scene.title(&format!(
        "Done in {:.1} s.",
        started.elapsed().as_secs_f64()
    ))?;
    scene
        .say("Next: `fieldkeep init --dir fk` makes a directory of your own and says how to go on.")
}
