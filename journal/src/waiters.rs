//! How asynchronous callers wait for a commit without the writer thread waking each of them.
//!
//! Waking a task of another thread costs a system call or more; with hundreds of callers that is
//! dearer than the disk. So each runtime has one *hub* task. The writer wakes the hub once a commit, if
//! somebody waits there for it, and the hub wakes its runtime's own waiters from inside that runtime, where a wake is a push onto
//! a local queue.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;

use crate::error::AppendError;
use crate::journal::Ticket;
use crate::state::{Level, Shared, lock};

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
    written: Queue,
    durable: Queue,
    number: u64,
}

impl Pending {
    fn queue(&mut self, level: Level) -> &mut Queue {
        match level {
            Level::Written => &mut self.written,
            Level::Durable => &mut self.durable,
        }
    }
}

/// Ordered by place, so that a commit's waiters are the first ones. Nearly every new one is the last.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Place, Waker)>,
}

/// The sequence that a waiter waits for, and its number among all waiters.
type Place = (u64, u64);

impl Queue {
    /// Where the waiter with this place is, or belongs.
    fn find(&self, place: Place) -> Result<usize, usize> {
        match self.waiting.back() {
            Some((last, _)) if *last < place => Err(self.waiting.len()),
            None => Err(0),
            Some(_) => self
                .waiting
                .binary_search_by_key(&place, |(place, _)| *place),
        }
    }

    fn put(&mut self, place: Place, waker: &Waker) {
        match self.find(place) {
            Ok(at) => {
                if let Some((_, old)) = self.waiting.get_mut(at) {
                    old.clone_from(waker);
                }
            }
            Err(at) => self.waiting.insert(at, (place, waker.clone())),
        }
    }

    /// Takes out everybody who waits for `sequence` or less.
    fn take(&mut self, sequence: u64) -> VecDeque<(Place, Waker)> {
        let done = self
            .waiting
            .partition_point(|((wanted, _), _)| *wanted <= sequence);
        let later = self.waiting.split_off(done);
        std::mem::replace(&mut self.waiting, later)
    }

    fn remove(&mut self, place: Place) {
        if let Ok(at) = self.find(place) {
            self.waiting.remove(at);
        }
    }

    /// Whether somebody waits for `sequence` or less.
    fn is_awaited(&self, sequence: u64) -> bool {
        let first = self.waiting.front();
        first.is_some_and(|((wanted, _), _)| *wanted <= sequence)
    }
}

impl Hub {
    /// Wakes the hub, whoever waits.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Wakes the hub if somebody waits for `sequence` or less to reach `level`. Whoever comes later finds that it has: both
    /// look under the lock, and the caller has published it before.
    pub(crate) fn wake_for(&self, level: Level, sequence: u64) {
        let pending = lock(&self.pending);
        let awaited = pending.written.is_awaited(sequence)
            || (level == Level::Durable && pending.durable.is_awaited(sequence));
        drop(pending);
        if awaited {
            self.wake();
        }
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
    ) -> impl Future<Output = Result<(), AppendError>> + Send + use<'_> {
        Reached {
            waiters: self,
            level: Level::Durable,
            sequence: ticket.sequence,
            number: None,
        }
    }

    /// Waits until the frames of `ticket` are written: they outlive the process, and a loss of power once the sync has run
    /// that starts at most [`crate::Options::window`] later. For appends that are [`crate::AppendOptions::relaxed`].
    /// [`Waiters::run`] must be running on this runtime.
    ///
    /// # Errors
    /// [`AppendError::Closed`] if the journal stopped before they were, or failed before they were durable.
    pub fn written(
        &self,
        ticket: Ticket,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + use<'_> {
        Reached {
            waiters: self,
            level: Level::Written,
            sequence: ticket.sequence,
            number: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        let pending = lock(&self.hub.pending);
        pending.written.waiting.len() + pending.durable.waiting.len()
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
            let (written, durable) = match stopped {
                true => (u64::MAX, u64::MAX),
                false => (shared.written(), shared.durable()),
            };
            let done = [pending.written.take(written), pending.durable.take(durable)];
            drop(pending);
            done.into_iter()
                .flatten()
                .for_each(|(_, waker)| waker.wake());
            if stopped {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }
}

struct Reached<'a> {
    waiters: &'a Waiters,
    level: Level,
    sequence: u64,
    /// Its number, while it waits.
    number: Option<u64>,
}

impl Future for Reached<'_> {
    type Output = Result<(), AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut pending = lock(&this.waiters.hub.pending);
        if let Some(outcome) = this.waiters.shared.outcome(this.level, this.sequence) {
            // The hub has taken it out already, unless it was polled for another reason.
            if let Some(number) = this.number.take() {
                pending.queue(this.level).remove((this.sequence, number));
            }
            return Poll::Ready(outcome);
        }
        let number = *this.number.get_or_insert_with(|| {
            pending.number += 1;
            pending.number
        });
        pending
            .queue(this.level)
            .put((this.sequence, number), context.waker());
        Poll::Pending
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut pending = lock(&self.waiters.hub.pending);
            pending.queue(self.level).remove((self.sequence, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_taken_out_by_sequence_whatever_order_they_came_in() {
        let mut pending = Queue::default();
        for place in [(3, 1), (5, 2), (4, 3), (3, 4), (5, 2)] {
            pending.put(place, Waker::noop());
        }
        let places = |taken: VecDeque<(Place, Waker)>| -> Vec<Place> {
            taken.into_iter().map(|(place, _)| place).collect()
        };
        assert!(pending.take(2).is_empty());
        assert_eq!(places(pending.take(4)), [(3, 1), (3, 4), (4, 3)]);
        assert_eq!(pending.find((4, 3)), Err(0));
        assert_eq!(places(pending.take(u64::MAX)), [(5, 2)]);
    }

    #[test]
    fn a_hub_is_woken_only_for_what_somebody_waits_for() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(Default::default()));
        let woken = || count.0.load(std::sync::atomic::Ordering::SeqCst);
        let hub = Hub::default();
        hub.waker.register(&Waker::from(Arc::clone(&count)));
        hub.wake_for(Level::Durable, 7);
        assert_eq!(woken(), 0);
        lock(&hub.pending).durable.put((7, 1), Waker::noop());
        hub.wake_for(Level::Durable, 6);
        hub.wake_for(Level::Written, 7);
        assert_eq!(woken(), 0);
        hub.wake_for(Level::Durable, 7);
        assert_eq!(woken(), 1);
        hub.waker.register(&Waker::from(Arc::clone(&count)));
        lock(&hub.pending).written.put((8, 2), Waker::noop());
        hub.wake_for(Level::Written, 8);
        assert_eq!(woken(), 2);
    }
}
