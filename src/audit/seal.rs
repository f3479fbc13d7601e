//! The seals of commits, made on the journal's writer thread, and how far the log is durable.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fieldkeep_crypto::keys::AuditSealKey;
use fieldkeep_journal::Seal;
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::tree::{Tree, TreeHead};

/// Size and root of what is durable, for those who sign it.
#[derive(Debug)]
pub(super) struct Heads {
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug)]
struct State {
    durable: TreeHead,
    /// All who wait are woken at this size, the smallest that one of them waits for; the others wait no longer than their patience.
    wanted: u64,
    closed: bool,
}

impl Heads {
    pub(super) fn new(durable: TreeHead) -> Heads {
        Heads {
            state: Mutex::new(State {
                durable,
                wanted: u64::MAX,
                closed: false,
            }),
            grown: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock still guards a whole head.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is durable now.
    pub(super) fn durable(&self) -> TreeHead {
        self.state().durable
    }

    /// Waits until `size` is durable, for `patience` at most; `None` once the log is closed.
    pub(super) fn wait_for(&self, size: u64, patience: Duration) -> Option<TreeHead> {
        let mut state = self.state();
        state.wanted = state.wanted.min(size);
        let (state, _) = self
            .grown
            .wait_timeout_while(state, patience, |state| {
                !state.closed && state.durable.size < size
            })
            .unwrap_or_else(PoisonError::into_inner);
        (!state.closed).then_some(state.durable)
    }

    /// Ends the waiting.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.grown.notify_all();
    }

    fn grow(&self, durable: TreeHead) {
        let mut state = self.state();
        state.durable = durable;
        if durable.size >= state.wanted {
            state.wanted = u64::MAX;
            drop(state);
            self.grown.notify_all();
        }
    }
}

/// Makes the seals of one log.
pub(super) struct Sealer {
    key: Arc<AuditSealKey>,
    tree: Tree,
    /// Commits that are sealed and not yet durable, oldest first.
    under_way: VecDeque<TreeHead>,
    heads: Arc<Heads>,
}

impl Sealer {
    /// Goes on with `tree`, all of which is durable.
    pub(super) fn new(key: Arc<AuditSealKey>, tree: Tree, heads: Arc<Heads>) -> Sealer {
        Sealer {
            key,
            tree,
            under_way: VecDeque::new(),
            heads,
        }
    }
}

impl Seal for Sealer {
    fn seal(&mut self, _first: u64, leaves: &[[u8; 32]]) -> [u8; 32] {
        for leaf in leaves {
            self.tree.append(Hash::from_bytes(*leaf));
        }
        let head = self.tree.head();
        self.under_way.push_back(head);
        self.key.seal(head.size, head.root.as_bytes())
    }

    fn committed(&mut self, through: u64) {
        // A journal's sequences begin at 1, so the last one is the size.
        let mut durable = None;
        while let Some(head) = self.under_way.front()
            && head.size <= through
        {
            durable = self.under_way.pop_front();
        }
        if let Some(durable) = durable {
            self.heads.grow(durable);
        }
    }
}

#[cfg(test)]
mod tests {
    use fieldkeep_crypto::keys::RecordKey;

    use super::*;

    #[test]
    fn only_what_is_durable_is_told() {
        let key = || RecordKey::dangerous_from_bytes(&[3; 32]).derive_audit_seal_key();
        let heads = Arc::new(Heads::new(Tree::new().head()));
        let mut sealer = Sealer::new(Arc::new(key()), Tree::new(), Arc::clone(&heads));
        let leaves: Vec<[u8; 32]> = (0..5).map(|n| [n; 32]).collect();
        let first = sealer.seal(1, &leaves[..2]);
        sealer.seal(3, &leaves[2..]);
        assert_eq!(heads.durable().size, 0);
        sealer.committed(2);
        let durable = heads.durable();
        assert_eq!(durable.size, 2);
        assert!(key().is_seal(2, durable.root.as_bytes(), &first));
        sealer.committed(5);
        assert_eq!(heads.durable().size, 5);
        assert_eq!(
            heads
                .wait_for(5, Duration::from_secs(60))
                .map(|head| head.size),
            Some(5)
        );
        heads.close();
        assert_eq!(heads.wait_for(6, Duration::from_secs(60)), None);
    }
}
