//! What an auditor reads: records of the trail, checkpoints and proofs.

use std::ops::ControlFlow;
use std::time::Duration;

use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::query::walk::Walk;
use fieldkeep_journal::Ticket;
use fieldkeep_proto::v1::AuditRecord;
use fieldkeep_tlog::hash::Hash;
use prost::{DecodeError, Message as _};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::access::action::Action;
use crate::access::principal::Principal;
use crate::audit::AuditLog;
use crate::audit::archive::Unpacked;
use crate::audit::checkpoint::Signed;
use crate::audit::prove::ProofError;
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
/// and that it looks at, about.
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
        Ok(Listed {
            entries: decoded(found.records)?,
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
        if index < core.audit.len() {
            checkpoint_over(core, index.saturating_add(1)).await;
        }
        proof(core, move |audit| Ok(audit.prove(index, leaf)?.to_string())).await
    }
}

/// How long whoever needs a checkpoint over durable records waits for it,
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(3);
/// and how often he looks.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(50);

/// The newest checkpoint, once it is over `records` records, which are durable; or as it is when that takes too long.
pub(super) async fn checkpoint_over(core: &Core, records: u64) -> Signed {
    let until = Instant::now() + CHECKPOINT_PATIENCE;
    loop {
        let newest = core.audit.checkpoint();
        if newest.head.size >= records || Instant::now() >= until {
            return newest;
        }
        sleep(CHECKPOINT_LOOK).await;
    }
}

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

pub(super) fn about(account: &mut Account) {
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
        let until = if self.follow { u64::MAX } else { len };
        Ok(Reading {
            walk: Walk::new(
                with_item(core, permit, self.filter, self.item.as_ref()),
                self.start.unwrap_or(len),
                until,
            ),
            held: None,
        })
    }
}

/// How far a tail has read. Its call is on record; what it reads later is not recorded again, but its rights are looked at for each
/// step.
#[derive(Debug)]
pub struct Reading {
    walk: Walk,
    /// What was read last of the archive.
    held: Option<Unpacked>,
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
            if reading.walk.is_over() || self.core.is_draining() {
                return Ok(None);
            }
            let before = self.before(call);
            let next = reading.walk.next();
            let step = if audit.len() > next {
                self.step(reading).await?
            } else {
                let ticket = Ticket::at(next.saturating_add(1));
                // Woken by the commit, or to look whether the service ends.
                let came = timeout(TAIL_LOOK, self.waiters.committed(ticket)).await;
                if came.is_ok() {
                    continue;
                }
                silent += TAIL_LOOK;
                Step {
                    records: Vec::new(),
                    next,
                }
            };
            let moved = step.next > next;
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

    async fn step(&self, reading: &mut Reading) -> Result<Step, Failure> {
        let audit = self.core.audit.clone();
        let (mut walk, mut held) = (reading.walk.clone(), reading.held.take());
        let (step, walk, held) = spawn_blocking(move || {
            read_step(&audit, &mut walk, &mut held).map(|step| (step, walk, held))
        })
        .await
        .map_err(Failure::internal)??;
        (reading.walk, reading.held) = (walk, held);
        Ok(step)
    }
}

fn read_step(
    audit: &AuditLog,
    walk: &mut Walk,
    held: &mut Option<Unpacked>,
) -> Result<Step, Failure> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    audit
        .walk(walk, held, TAIL_READ, &mut |index, record| {
            records.push((index, record.to_vec()));
            bytes += record.len();
            match records.len() == TAIL_RECORDS || bytes > TAIL_BYTES {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .map_err(Failure::internal)?;
    Ok(Step {
        records: decoded(records)?,
        next: walk.next(),
    })
}

fn decoded(records: Vec<(u64, Vec<u8>)>) -> Result<Vec<(u64, AuditRecord)>, Failure> {
    records
        .into_iter()
        .map(|(index, record)| Ok((index, AuditRecord::decode(record.as_slice())?)))
        .collect::<Result<_, DecodeError>>()
        .map_err(Failure::internal)
}
