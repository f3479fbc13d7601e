//! What the service does by itself, beside its calls: loops on the control runtime.

pub mod archive;
pub mod rotation;
mod supervise;

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::archive::Archiving;
use self::rotation::Rotation;
use self::supervise::{PAUSES, supervise};
use crate::service::failure::Failure;

/// The loops of one service.
pub struct Jobs {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Jobs {
    /// Starts all loops on this runtime.
    #[must_use]
    pub fn start(rotation: Rotation, archiving: Archiving) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tasks = vec![
            spawn(
                "rotation",
                rotation.failures(),
                &stopped,
                rotation,
                |job, stopped| async move { job.run(stopped).await },
            ),
            spawn(
                "archive",
                archiving.failures(),
                &stopped,
                archiving,
                |job, stopped| async move { job.run(stopped).await },
            ),
        ];
        Self { stop, tasks }
    }

    /// Lets what is under way end, and begins nothing more.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            if task.await.is_err() {
                tracing::error!("a job ended by a defect");
            }
        }
    }
}

/// Runs the loop of `job` under supervision.
fn spawn<J, F>(
    name: &'static str,
    failures: IntCounter,
    stopped: &watch::Receiver<bool>,
    job: J,
    run: impl Fn(Arc<J>, watch::Receiver<bool>) -> F + Send + 'static,
) -> JoinHandle<()>
where
    J: Send + Sync + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (job, its_stop) = (Arc::new(job), stopped.clone());
    let make = move || run(Arc::clone(&job), its_stop.clone());
    tokio::spawn(supervise(name, PAUSES, failures, stopped.clone(), make))
}
