//! How asynchronous callers wait for a commit without the writer thread waking each of them.
//!
//! Waking a task of another thread costs a system call or more; with hundreds of callers that is
//! dearer than the disk. So each runtime has one *hub* task. The writer wakes the hub once a commit,
//! and the hub wakes its runtime's own waiters from inside that runtime, where a wake is a push onto
//! a local queue.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;

use crate::error::AppendError;
use crate::journal::Ticket;
use crate::state::{Shared, lock};

/// The hub of one runtime; clone it for each task there. Made by [`crate::Journal::waiters`].
#[derive(Clone)]
pub struct Waiters {
    shared: Arc<Shared>,
    hub: Arc<Hub>,
}

#[derive(Default)]
pub(crate) struct Hub {
    waker: AtomicWaker,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    /// By sequence, then by number, so that a commit's waiters are one range.
    wakers: BTreeMap<(u64, u64), Waker>,
    number: u64,
}

impl Hub {
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

impl Waiters {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let hub = Arc::new(Hub::default());
        lock(&shared.hubs).push(Arc::downgrade(&hub));
        Waiters { shared, hub }
    }

    /// Waits until the frames of `ticket` are durable. [`Waiters::run`] must be running on this runtime.
    ///
    /// # Errors
    /// [`AppendError::Closed`] if the journal stopped before they were.
    pub fn committed(
        &self,
        ticket: Ticket,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + 'static {
        Committed {
            waiters: self.clone(),
            sequence: ticket.sequence,
            number: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        lock(&self.hub.pending).wakers.len()
    }

    /// The hub's task: spawn it once on the runtime whose tasks use this hub. It ends when the journal closes.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let Waiters { shared, hub } = self.clone();
        poll_fn(move |context| {
            // Registered before looking, so that a commit in between is not missed.
            hub.waker.register(context.waker());
            let mut pending = lock(&hub.pending);
            // Read under the lock: a waiter that registers later sees at least this value.
            let stopped = shared.is_stopped();
            let waiting = if stopped {
                BTreeMap::new()
            } else {
                pending.wakers.split_off(&(shared.durable() + 1, 0))
            };
            let done = std::mem::replace(&mut pending.wakers, waiting);
            drop(pending);
            done.into_values().for_each(Waker::wake);
            if stopped {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }
}

struct Committed {
    waiters: Waiters,
    sequence: u64,
    number: Option<u64>,
}

impl Future for Committed {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut pending = lock(&this.waiters.hub.pending);
        if let Some(outcome) = this.waiters.shared.outcome(this.sequence) {
            return Poll::Ready(outcome);
        }
        let number = *this.number.get_or_insert_with(|| {
            pending.number += 1;
            pending.number
        });
        pending
            .wakers
            .insert((this.sequence, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            lock(&self.waiters.hub.pending)
                .wakers
                .remove(&(self.sequence, number));
        }
    }
}
