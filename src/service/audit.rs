//! What an auditor reads: records of the trail, checkpoints and proofs.

use std::time::Duration;

use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::view::RecordView;
use fieldkeep_journal::Ticket;
use fieldkeep_proto::v1::AuditRecord;
use fieldkeep_tlog::hash::Hash;
use prost::Message as _;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::access::action::Action;
use crate::access::principal::Principal;
use crate::audit::prove::ProofError;
use crate::audit::{AuditError, AuditLog};
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::items::Sought;
use crate::service::keys::{Listed, Page};
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Grounds, Permit};
use crate::service::record::Account;
use crate::service::{Core, Service};

/// Records that one step of a tail gives at most,
const TAIL_RECORDS: usize = 256;
/// and their bytes, but for the last one's,
const TAIL_BYTES: usize = 1 << 20;
/// and that it looks at.
const TAIL_READ: u64 = 65_536;
/// How long a tail is silent at most.
const TAIL_SILENCE: Duration = Duration::from_secs(15);
/// How often a waiting tail looks whether the service ends.
const TAIL_LOOK: Duration = Duration::from_millis(250);

/// List audit records, newest first. The token of a page is the index before which it begins, in decimal.
pub struct ListRecords {
    /// Which page.
    pub page: Page,
    /// Which records.
    pub filter: Filter,
    /// The item that they have to be about, if there is one.
    pub item: Option<Sought>,
}

impl Operation for ListRecords {
    const ACTION: Action = Action::Audit;
    type Output = Listed<(u64, AuditRecord)>;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(account);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Listed<(u64, AuditRecord)>, Failure> {
        about(account);
        let filter = with_item(core, permit, self.filter, self.item.as_ref());
        let before = match self.page.after.as_deref().map(str::parse) {
            None => None,
            Some(Ok(before)) => Some(before),
            Some(Err(_)) => {
                return Err(Failure::invalid(
                    "page_token",
                    "not a token of this listing",
                ));
            }
        };
        let (audit, limit) = (core.audit.clone(), self.page.limit);
        let found = spawn_blocking(move || audit.find(&filter, before, limit))
            .await
            .map_err(Failure::internal)?
            .map_err(Failure::internal)?;
        let entries: Result<Vec<_>, _> = found
            .records
            .into_iter()
            .map(|(index, record)| Ok((index, AuditRecord::decode(record.as_slice())?)))
            .collect();
        Ok(Listed {
            entries: entries.map_err(|error: prost::DecodeError| Failure::internal(error))?,
            next: found.next.map(|next| next.to_string()),
        })
    }
}

/// The newest checkpoint and its key, as texts.
#[derive(Debug, Clone)]
pub struct CheckpointTexts {
    /// The signed note.
    pub note: String,
    /// The verifier key.
    pub verifier_key: String,
}

/// Read the newest checkpoint.
pub struct ReadCheckpoint;

impl Operation for ReadCheckpoint {
    const ACTION: Action = Action::Audit;
    type Output = CheckpointTexts;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(account);
    }

    async fn run(
        self,
        core: &Core,
        _permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<CheckpointTexts, Failure> {
        about(account);
        Ok(CheckpointTexts {
            note: core.audit.checkpoint().note,
            verifier_key: core.audit.verifier_key().to_string(),
        })
    }
}

/// A proof and the key of its checkpoint, as texts.
#[derive(Debug, Clone)]
pub struct ProofTexts {
    /// The proof.
    pub proof: String,
    /// The verifier key.
    pub verifier_key: String,
}

/// Prove that a record is in the log.
pub struct ProveRecord {
    /// Its index.
    pub index: u64,
    /// The leaf hash that it must have.
    pub leaf: Option<Hash>,
}

impl Operation for ProveRecord {
    const ACTION: Action = Action::Audit;
    type Output = ProofTexts;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(account);
    }

    async fn run(
        self,
        core: &Core,
        _permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<ProofTexts, Failure> {
        about(account);
        let Self { index, leaf } = self;
        // A receipt may be younger than the newest checkpoint, but never by more than a moment.
        let audit = core.audit.clone();
        let until = tokio::time::Instant::now() + CHECKPOINT_PATIENCE;
        while index < audit.len()
            && index >= audit.checkpoint().head.size
            && tokio::time::Instant::now() < until
        {
            tokio::time::sleep(CHECKPOINT_LOOK).await;
        }
        proof(core, move |audit| Ok(audit.prove(index, leaf)?.to_string())).await
    }
}

/// How long a proof waits for a checkpoint over its record,
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(3);
/// and how often it looks.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(50);

/// Prove that the log of an earlier checkpoint is a beginning of the present one.
pub struct ProveGrowth {
    /// The earlier checkpoint, a signed note.
    pub checkpoint: String,
}

impl Operation for ProveGrowth {
    const ACTION: Action = Action::Audit;
    type Output = ProofTexts;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(account);
    }

    async fn run(
        self,
        core: &Core,
        _permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<ProofTexts, Failure> {
        about(account);
        proof(core, move |audit| {
            Ok(audit.prove_consistency(&self.checkpoint)?.to_string())
        })
        .await
    }
}

/// The filter with the keyed hash of the item that somebody looks for. Whoever asks never sees the key of the hash.
fn with_item(core: &Core, permit: &Permit<'_>, filter: Filter, item: Option<&Sought>) -> Filter {
    Filter {
        item: item.map(|item| item.hash(core, permit.principal())),
        ..filter
    }
}

fn about(account: &mut Account) {
    account.used(String::from("audit"), 0, "", 0);
}

async fn proof(
    core: &Core,
    make: impl FnOnce(&AuditLog) -> Result<String, ProofError> + Send + 'static,
) -> Result<ProofTexts, Failure> {
    let audit = core.audit.clone();
    let verifier_key = audit.verifier_key().to_string();
    let made = spawn_blocking(move || make(&audit))
        .await
        .map_err(Failure::internal)?;
    match made {
        Ok(proof) => Ok(ProofTexts {
            proof,
            verifier_key,
        }),
        Err(error @ (ProofError::NotInLog { .. } | ProofError::OtherRecord { .. })) => {
            Err(Failure::invalid("index", error.to_string()))
        }
        Err(error @ (ProofError::NotOurs(_) | ProofError::NotConsistent { .. })) => {
            Err(Failure::invalid("checkpoint", error.to_string()))
        }
        Err(error) => Err(Failure::internal(error)),
    }
}

/// Read records in order, oldest first.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The index to begin at; `None`: behind the newest record.
    pub start: Option<u64>,
    /// Which records.
    pub filter: Filter,
    /// The item that they have to be about, if there is one.
    pub item: Option<Sought>,
    /// Whether to go on with those that come.
    pub follow: bool,
}

impl Operation for Tail {
    const ACTION: Action = Action::Audit;
    type Output = Reading;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(account);
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<Reading, Failure> {
        about(account);
        let len = core.audit.len();
        Ok(Reading {
            next: self.start.unwrap_or(len),
            until: if self.follow { u64::MAX } else { len },
            filter: with_item(core, permit, self.filter, self.item.as_ref()),
        })
    }
}

/// How far a tail has read. Its call is on record; what it reads later is not recorded again, but its rights are looked at for each
/// step.
#[derive(Debug)]
pub struct Reading {
    next: u64,
    /// It ends before this index.
    until: u64,
    filter: Filter,
}

/// Some records of a tail.
#[derive(Debug, Default)]
pub struct Step {
    /// The records, oldest first; none now and then.
    pub records: Vec<(u64, AuditRecord)>,
    /// The index behind the last one that was looked at.
    pub next: u64,
}

impl Service {
    /// The next records of a tail, as soon as there are any or it has been silent for long; `None` at its end, and when the service ends.
    /// `grounds` are those of the tail's call.
    ///
    /// # Errors
    /// The caller lost the right, which has to go on record, or the trail cannot be read.
    pub async fn read_on(
        &self,
        call: &Call,
        grounds: Option<&Grounds>,
        reading: &mut Reading,
    ) -> Result<Option<Step>, Failure> {
        let audit = &self.core.audit;
        let mut silent = Duration::ZERO;
        loop {
            if reading.next >= reading.until || self.core.is_draining() {
                return Ok(None);
            }
            let before = self.before(call);
            let step = if audit.len() > reading.next {
                self.step(reading).await?
            } else {
                let next = Ticket::at(reading.next.saturating_add(1));
                // Woken by the commit, or to look whether the service ends.
                let came = timeout(TAIL_LOOK, self.waiters.committed(next)).await;
                if came.is_ok() {
                    continue;
                }
                silent += TAIL_LOOK;
                Step {
                    records: Vec::new(),
                    next: reading.next,
                }
            };
            let moved = step.next > reading.next;
            reading.next = step.next;
            // Also without records, so that whoever may not read on learns it.
            self.may_leave(call, before, grounds)?;
            if !step.records.is_empty() || silent >= TAIL_SILENCE {
                return Ok(Some(step));
            }
            if moved {
                silent = Duration::ZERO;
            }
        }
    }

    async fn step(&self, reading: &Reading) -> Result<Step, Failure> {
        let (audit, filter) = (self.core.audit.clone(), reading.filter.clone());
        let (from, until) = (reading.next, reading.until);
        spawn_blocking(move || read_step(&audit, &filter, from, until))
            .await
            .map_err(Failure::internal)?
            .map_err(Failure::internal)
    }
}

fn read_step(audit: &AuditLog, filter: &Filter, from: u64, until: u64) -> Result<Step, AuditError> {
    let mut step = Step {
        records: Vec::new(),
        next: from,
    };
    let mut bytes = 0;
    let last = until.min(from.saturating_add(TAIL_READ));
    let mut frames = audit.journal().read_frames(from.saturating_add(1))?;
    while let Some(frame) = frames.read_next()? {
        let index = frame.sequence.saturating_sub(1);
        if index >= last || step.records.len() == TAIL_RECORDS || bytes > TAIL_BYTES {
            break;
        }
        if frame.is_seal {
            continue;
        }
        step.next = index + 1;
        // What is not asked for is not decoded. A record that cannot be read is one that everybody asks for.
        let asked =
            RecordView::parse(frame.payload).map_or(true, |view| filter.accepts_view(&view));
        if asked {
            let record = AuditRecord::decode(frame.payload)
                .map_err(|source| AuditError::UnknownRecord { index, source })?;
            bytes += frame.payload.len();
            step.records.push((index, record));
        }
    }
    Ok(step)
}
