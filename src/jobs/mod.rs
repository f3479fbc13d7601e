//! What the service does by itself, beside its calls: loops on the control runtime.

pub mod archive;
pub mod rotation;
mod supervise;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::archive::Archiving;
use self::rotation::Rotation;
use self::supervise::{PAUSES, supervise};

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
        let failures = rotation.failures();
        let rotation = Arc::new(rotation);
        let run = {
            let stopped = stopped.clone();
            move || {
                let (rotation, stopped) = (Arc::clone(&rotation), stopped.clone());
                async move { rotation.run(stopped).await }
            }
        };
        let rotating = tokio::spawn(supervise(
            "rotation",
            PAUSES,
            failures,
            stopped.clone(),
            run,
        ));
        let failures = archiving.failures();
        let archiving = Arc::new(archiving);
        let run = {
            let stopped = stopped.clone();
            move || {
                let (archiving, stopped) = (Arc::clone(&archiving), stopped.clone());
                async move { archiving.run(stopped).await }
            }
        };
        let archiving = tokio::spawn(supervise("archive", PAUSES, failures, stopped, run));
        let tasks = vec![rotating, archiving];
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
