//! Compliance reports: made of the service's own trail and keys, and signed with the key of its log. A caller says which range of time
//! and which form, and nothing else that is signed.

use std::ops::ControlFlow;

use bytes::Bytes;
use fieldkeep_audit::filter::Filter;
use fieldkeep_audit::query::walk::Walk;
use fieldkeep_audit::report::builder::Builder;
use fieldkeep_audit::report::overdue::{OverdueKey, OverdueKeys};
use fieldkeep_audit::report::{Basis, Range};
use fieldkeep_keystore::rotation::plan::{Act, Candidate, Cause, Now, plan};
use fieldkeep_proto::v1::AuditRecord;
use fieldkeep_tlog::report::ReportForm;
use prost::Message as _;
use tokio::task::spawn_blocking;

use crate::access::action::Action;
use crate::access::principal::Principal;
use crate::audit::AuditLog;
use crate::audit::archive::Unpacked;
use crate::audit::checkpoint::Signed;
use crate::service::audit::{about, checkpoint_over};
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::perform::Operation;
use crate::service::perform::permit::{Asks, Grounds, Permit};
use crate::service::record::Account;
use crate::service::resource::key_resource;
use crate::service::{Core, Service};

/// The most reports that are made at once, each of which may take tens of MiB; further ones wait.
pub(super) const MAX_REPORTS: usize = 2;
/// Records that one step looks at, about.
const RECORDS_A_STEP: u64 = 65_536;
/// Keys that one look at the store takes.
const KEYS_A_LOOK: usize = 1_000;

/// Make a report.
#[derive(Debug, Clone, Copy)]
pub struct MakeReport {
    /// It counts calls that ended at this time or later, microseconds since the Unix epoch,
    pub from_us: u64,
    /// and before this one, which is later; `None`: before now.
    pub to_us: Option<u64>,
    /// The form.
    pub form: ReportForm,
}

impl Operation for MakeReport {
    const ACTION: Action = Action::Audit;
    type Output = ReportOrder;

    fn asks<'a>(&'a self, _caller: &'a Principal) -> Asks<'a> {
        Asks::ALL
    }

    fn about(&self, _caller: &Principal, account: &mut Account) {
        about(account);
        account.detail(format!(
            "form={} start_time_us={} end_time_us={}",
            self.form.as_str(),
            self.from_us,
            self.to_us.unwrap_or(0)
        ));
    }

    async fn run(
        self,
        core: &Core,
        permit: &Permit<'_>,
        account: &mut Account,
    ) -> Result<ReportOrder, Failure> {
        self.about(permit.principal(), account);
        let to_us = self.to_us.unwrap_or_else(|| core.now_us());
        let range = Range::new(self.from_us, to_us)
            .map_err(|error| Failure::invalid("start_time_us", error.to_string()))?;
        Ok(ReportOrder {
            range,
            form: self.form,
            records: core.audit.len(),
        })
    }
}

/// A report that may be made. Its call is on record; what is read for it is not recorded again, but the caller's rights are looked at
/// on the way.
#[derive(Debug, Clone, Copy)]
pub struct ReportOrder {
    range: Range,
    form: ReportForm,
    /// It rests on a checkpoint over so many records at least: all that were durable when it was asked for.
    records: u64,
}

/// A report and its signature.
#[derive(Debug)]
pub struct SignedReport {
    /// The report.
    pub report: Bytes,
    /// The file that proves who made it, and of what (docs/audit-format.md).
    pub signature: String,
}

impl Service {
    /// Makes the report that the call `call`, which relied on `grounds`, asked for. Whoever drops this ends it; a step that runs
    /// meanwhile reads one record segment at most.
    ///
    /// # Errors
    /// The caller lost the right, or the service ends, which has to go on record; there is no checkpoint, or the trail or the store
    /// cannot be read.
    pub async fn make_report(
        &self,
        call: &Call,
        grounds: Option<&Grounds>,
        order: ReportOrder,
    ) -> Result<SignedReport, Failure> {
        let core = &self.core;
        let _place = tokio::select! {
            place = core.reports.acquire() => place.map_err(Failure::internal)?,
            () = core.drained() => return Err(Failure::ShuttingDown),
        };
        let checkpoint = checkpoint_over(core, order.records).await;
        if checkpoint.head.size < order.records {
            return Err(Failure::AuditUnavailable);
        }
        let first = core.audit.first();
        let filter = Filter {
            from_us: Some(order.range.begin_us()),
            to_us: Some(order.range.end_us()),
            ..Filter::default()
        };
        let mut counted = Counted {
            builder: Builder::new(order.range),
            walk: Walk::new(filter, first, checkpoint.head.size),
            held: None,
        };
        while !counted.walk.is_over() {
            self.may_go_on(call, grounds)?;
            let audit = core.audit.clone();
            counted = spawn_blocking(move || counted.go_on(&audit))
                .await
                .map_err(Failure::internal)??;
        }
        let builder = counted.builder;
        let overdue = self.overdue(call, grounds, order.range).await?;
        let audit = core.audit.clone();
        spawn_blocking(move || finish(&audit, builder, order, first, checkpoint, overdue))
            .await
            .map_err(Failure::internal)?
    }

    /// Whether the caller may have more of what it was allowed to read, and the service goes on.
    ///
    /// # Errors
    /// As [`Service::make_report`].
    fn may_go_on(&self, call: &Call, grounds: Option<&Grounds>) -> Result<(), Failure> {
        if self.core.is_draining() {
            return Err(Failure::ShuttingDown);
        }
        self.may_leave(call, self.before(call), grounds)
    }

    /// The keys of all tenants whose rotation was due in `range` or before it, and has not happened.
    async fn overdue(
        &self,
        call: &Call,
        grounds: Option<&Grounds>,
        range: Range,
    ) -> Result<OverdueKeys, Failure> {
        let core = &self.core;
        let now = Now {
            unix_s: core.now_us() / 1_000_000,
            // Versions that are to retire do not concern it.
            steady: false,
        };
        let (mut overdue, mut after) = (OverdueKeys::default(), None);
        loop {
            self.may_go_on(call, grounds)?;
            let page = core.candidates(after.as_ref(), KEYS_A_LOOK).await?;
            // A report that passes a key over would say that it is in order.
            if let Some(damaged) = page.damaged.into_iter().next() {
                return Err(Failure::internal(damaged));
            }
            for planned in plan(now, &page.candidates, usize::MAX) {
                let due_us = planned.due.saturating_mul(1_000_000);
                if let Act::Rotate { cause, .. } = planned.act
                    && let Some(key) = page.candidates.get(planned.index)
                    && due_us < range.end_us()
                {
                    overdue.add(overdue_key(key, cause, due_us));
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(overdue);
            }
        }
    }
}

fn overdue_key(key: &Candidate, cause: Cause, due_us: u64) -> OverdueKey {
    let reason = match cause {
        Cause::Period => "its period ended",
        Cause::Cron => "a time of its cron expression came",
        // When a limit was reached is not known, only that it was after the last rotation.
        Cause::Messages => "it encrypted as many messages as it may since then",
        Cause::Bytes => "it encrypted as many bytes as it may since then",
        Cause::Clock => "its last rotation is said to be in the future",
    };
    OverdueKey {
        due_us,
        name: key_resource(key.tenant.as_str(), key.name.as_str()),
        reason: String::from(reason),
    }
}

/// What was counted so far.
struct Counted {
    builder: Builder,
    walk: Walk,
    /// What was read last of the archive.
    held: Option<Unpacked>,
}

impl Counted {
    /// Counts some more records.
    fn go_on(mut self, audit: &AuditLog) -> Result<Counted, Failure> {
        let (builder, mut unreadable) = (&mut self.builder, None);
        let visit = &mut |index: u64, record: &[u8]| match AuditRecord::decode(record) {
            Ok(record) => {
                builder.add(index, &record);
                ControlFlow::Continue(())
            }
            Err(error) => {
                unreadable = Some(error);
                ControlFlow::Break(())
            }
        };
        audit
            .walk(&mut self.walk, &mut self.held, RECORDS_A_STEP, visit)
            .map_err(Failure::internal)?;
        unreadable.map_or(Ok(self), |error| Err(Failure::internal(error)))
    }
}

fn finish(
    audit: &AuditLog,
    builder: Builder,
    order: ReportOrder,
    first: u64,
    checkpoint: Signed,
    overdue: OverdueKeys,
) -> Result<SignedReport, Failure> {
    let basis = Basis {
        log_id: *audit.log_id().as_bytes(),
        checkpoint: checkpoint.note.clone(),
    };
    let report = builder.finish(basis, overdue);
    let mut bytes = Vec::new();
    match order.form {
        ReportForm::Text => report.write_text(&mut bytes),
        ReportForm::Json => report.write_json(&mut bytes),
        ReportForm::Html => report.write_html(&mut bytes),
    }
    .map_err(Failure::internal)?;
    let signature = audit
        .sign_report(&bytes, order.form, order.range, first, checkpoint)
        .map_err(Failure::internal)?;
    Ok(SignedReport {
        report: bytes.into(),
        signature: signature.to_string(),
    })
}
