//! Work of many bytes or many items, off the runtime's thread and bounded in number.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use crate::service::failure::Failure;
use crate::service::{Core, Service};

/// Bytes of a request above which its work leaves the runtime's thread.
pub const OFFLOAD_BYTES: usize = 64 * 1024;
/// Items of a batch above which its work leaves the runtime's thread, however short they are.
pub const OFFLOAD_ITEMS: usize = 512;
/// Batches that may be at work off the runtime threads, or wait for that, at once. More wait before they take memory.
const OFFLOADED_BATCHES: usize = 64;
/// Look-ups of a batch on the runtime's thread before other calls have a turn.
const LOOKUPS_A_TURN: usize = 128;

/// How much a batch is.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// Everything that the request holds: values, contexts, names.
    pub bytes: usize,
    /// The items.
    pub items: usize,
}

impl Weight {
    /// Whether the work for it leaves the runtime's thread.
    #[must_use]
    pub fn is_large(self) -> bool {
        self.bytes > OFFLOAD_BYTES || self.items > OFFLOAD_ITEMS
    }
}

/// The places of work off the runtime threads.
#[derive(Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(OFFLOADED_BATCHES)))
    }

    /// Takes every place, so that work waits until the result is dropped.
    #[cfg(test)]
    pub(super) fn take_all(&self) -> tokio::sync::OwnedSemaphorePermit {
        Arc::clone(&self.0)
            .try_acquire_many_owned(OFFLOADED_BATCHES as u32)
            .unwrap()
    }

    /// Runs `work` on the pool of blocking threads of this runtime. The place is the work's, not the caller's: it is free
    /// only when the pool has done with it, so that callers who give up cannot queue without bound. Work that nobody waits
    /// for any more is not begun.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let place = Arc::clone(&self.0)
            .acquire_owned()
            .await
            .map_err(Failure::internal)?;
        let (result, waiting) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            if !result.is_closed() {
                // If the caller goes away meanwhile, the result is dropped here.
                let _ = result.send(work());
            }
        });
        waiting.await.map_err(Failure::internal)
    }
}

#[cfg(test)]
impl Core {
    /// The same, once all work that has a place is done.
    pub(crate) async fn places_when_free(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(OFFLOADED_BATCHES).unwrap();
        let places = Arc::clone(&self.places.0);
        places.acquire_many_owned(all).await.unwrap()
    }

    /// All places, so that no work leaves its thread until they are dropped.
    pub(crate) fn hold_places(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(OFFLOADED_BATCHES).unwrap();
        Arc::clone(&self.places.0)
            .try_acquire_many_owned(all)
            .unwrap()
    }
}

impl Service {
    /// Runs `work` for a batch of `weight`: here if that is little, otherwise on this runtime's pool of blocking threads,
    /// so that other calls of this runtime go on meanwhile.
    ///
    /// # Errors
    /// [`Failure::Internal`] if the work did not end.
    pub async fn offload<T: Send + 'static>(
        &self,
        weight: Weight,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        offload(&self.core, weight, work).await
    }
}

/// As [`Service::offload`].
pub(super) async fn offload<T: Send + 'static>(
    core: &Core,
    weight: Weight,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if weight.is_large() {
        Box::pin(core.places.run(work)).await
    } else {
        Ok(work())
    }
}

/// Counts the look-ups of a batch, which run on the runtime's thread, and lets other calls have their turn between them.
#[derive(Debug, Default)]
pub(super) struct Turns(usize);

impl Turns {
    pub(super) async fn next(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(LOOKUPS_A_TURN) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use futures_util::poll;

    use super::*;

    #[test]
    fn many_short_items_are_as_large_as_many_bytes() {
        let large = |bytes, items| Weight { bytes, items }.is_large();
        assert!(!large(OFFLOAD_BYTES, OFFLOAD_ITEMS));
        assert!(large(OFFLOAD_BYTES + 1, 1));
        assert!(large(1, OFFLOAD_ITEMS + 1));
    }

    #[test]
    fn work_that_is_given_up_keeps_its_place_and_is_not_begun() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let places = Places::new();
            let (release, held) = mpsc::channel::<()>();
            let mut first = Box::pin(places.run(move || held.recv()));
            assert!(poll!(&mut first).is_pending());

            let ran = Arc::new(AtomicBool::new(false));
            for _ in 1..OFFLOADED_BATCHES {
                let ran = Arc::clone(&ran);
                let mut given_up = Box::pin(places.run(move || ran.store(true, Ordering::SeqCst)));
                assert!(poll!(&mut given_up).is_pending());
            }
            assert_eq!(places.0.available_permits(), 0);

            release.send(()).unwrap();
            first.await.unwrap().unwrap();
            places.run(|| ()).await.unwrap();
            assert!(!ran.load(Ordering::SeqCst));
        });
    }
}
