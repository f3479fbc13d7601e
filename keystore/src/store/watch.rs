//! Watching: a bounded ring of recent commits, and live delivery to bounded channels.
//!
//! The unit is the commit: a watcher that falls behind loses whole commits, never a part of one.

use std::{
    collections::{VecDeque, vec_deque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::Stream;
use tokio::sync::mpsc;

use super::{Event, StoreError, limits::MAX_WATCHERS};

/// How many recent events the ring keeps for watchers that start late.
pub const RING_EVENTS: usize = 10_000;
/// How many bytes of keys and values the ring keeps at most.
pub const RING_BYTES: usize = 4 << 20;
/// How many commits may wait for one watcher before it is dropped as lagging.
pub const WATCHER_COMMITS: usize = 1024;

/// The events of one commit, in the order of the transaction (puts, then deletes).
type CommitEvents = Arc<[Event]>;

/// A stream of changes, made by [`super::Store::watch`].
///
/// It ends with `None` when the store closes, and with [`StoreError::Lagged`] and then `None` when the watcher
/// was too slow.
#[derive(Debug)]
pub struct Watch {
    from: u64,
    backlog: vec_deque::IntoIter<CommitEvents>,
    live: mpsc::Receiver<CommitEvents>,
    lagged: Arc<AtomicBool>,
    current: Option<(CommitEvents, usize)>,
    ended: bool,
}

impl Watch {
    /// The next change. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Event, StoreError>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, StoreError>>> {
        loop {
            if let Some((events, at)) = &mut self.current {
                if let Some(event) = events.get(*at) {
                    *at += 1;
                    return Poll::Ready(Some(Ok(event.clone())));
                }
                self.current = None;
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let next = match self.backlog.next() {
                Some(events) => Some(events),
                None => match self.live.poll_recv(context) {
                    Poll::Ready(events) => events,
                    Poll::Pending => return Poll::Pending,
                },
            };
            match next {
                // A watch may start in the future; what comes before is not for it.
                Some(events)
                    if events
                        .first()
                        .is_some_and(|event| event.revision > self.from) =>
                {
                    self.current = Some((events, 0));
                }
                Some(_) => {}
                None => {
                    self.ended = true;
                    if self.lagged.load(Ordering::Acquire) {
                        return Poll::Ready(Some(Err(StoreError::Lagged)));
                    }
                }
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<Event, StoreError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

struct Watcher {
    live: mpsc::Sender<CommitEvents>,
    lagged: Arc<AtomicBool>,
}

/// The publishing side, owned by a store.
pub(super) struct Watchers {
    /// The ring holds every commit with a revision greater than this.
    base: u64,
    ring: VecDeque<CommitEvents>,
    ring_events: usize,
    ring_bytes: usize,
    watchers: Vec<Watcher>,
    closed: bool,
}

impl Watchers {
    /// An empty ring of a store that is at `revision`.
    pub(super) fn new(revision: u64) -> Self {
        Watchers {
            base: revision,
            ring: VecDeque::new(),
            ring_events: 0,
            ring_bytes: 0,
            watchers: Vec::new(),
            closed: false,
        }
    }

    /// Publishes one commit. Commits come in the order of their revisions. Commits without changes are not
    /// events and may be left out.
    pub(super) fn publish(&mut self, events: Vec<Event>) {
        if events.is_empty() || self.closed {
            return;
        }
        let events: CommitEvents = events.into();
        self.watchers
            .retain(|watcher| match watcher.live.try_send(Arc::clone(&events)) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watcher.lagged.store(true, Ordering::Release);
                    false
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            });
        self.ring_events += events.len();
        self.ring_bytes += size_of(&events);
        self.ring.push_back(events);
        while self.ring_events > RING_EVENTS || self.ring_bytes > RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else {
                break;
            };
            self.ring_events -= oldest.len();
            self.ring_bytes -= size_of(&oldest);
            self.base = oldest.first().map_or(self.base, |event| event.revision);
        }
    }

    /// Starts a watch of everything after `from`.
    pub(super) fn subscribe(&mut self, from: u64) -> Result<Watch, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        if from < self.base {
            return Err(StoreError::Compacted { oldest: self.base });
        }
        self.watchers.retain(|watcher| !watcher.live.is_closed());
        if self.watchers.len() >= MAX_WATCHERS {
            return Err(StoreError::TooManyWatchers {
                limit: MAX_WATCHERS,
            });
        }
        let backlog: VecDeque<CommitEvents> = self
            .ring
            .iter()
            .filter(|events| events.first().is_some_and(|event| event.revision > from))
            .cloned()
            .collect();
        let (sender, live) = mpsc::channel(WATCHER_COMMITS);
        let lagged = Arc::new(AtomicBool::new(false));
        self.watchers.push(Watcher {
            live: sender,
            lagged: Arc::clone(&lagged),
        });
        Ok(Watch {
            from,
            backlog: backlog.into_iter(),
            live,
            lagged,
            current: None,
            ended: false,
        })
    }

    /// Ends every watch, after what was already published.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.watchers.clear();
        self.ring.clear();
    }
}

fn size_of(events: &[Event]) -> usize {
    events
        .iter()
        .map(|event| event.key.len() + event.value.as_ref().map_or(0, bytes::Bytes::len))
        .sum()
}
