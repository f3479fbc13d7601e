//! The messages of `fieldkeep.v1.AuditService`.

use fieldkeep_audit::filter::{Filter, PrincipalFilter};
use fieldkeep_proto::v1::{
    AuditEntry, AuditFilter, AuditRecord, Decision, GetCheckpointRequest, GetCheckpointResponse,
    ListRecordsRequest, ListRecordsResponse, ProveConsistencyRequest, ProveConsistencyResponse,
    ProveRecordRequest, ProveRecordResponse, TailRecordsRequest, TailRecordsResponse,
};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::note::MAX_NOTE_BYTES;

use super::{context, field_name, key_name, page, token};
use crate::service::audit::{
    CheckpointTexts, ListRecords, ProofTexts, ProveGrowth, ProveRecord, ReadCheckpoint, Step, Tail,
};
use crate::service::failure::Failure;
use crate::service::items::Sought;
use crate::service::keys::Listed;

/// The longest text of a filter, bytes: longer ones are in no record.
const MAX_FILTER_BYTES: usize = 512;

/// What a ListRecords asks for.
///
/// # Errors
/// The part that is not valid; so for every request of this module.
pub fn list_records(request: ListRecordsRequest) -> Result<ListRecords, Failure> {
    let asked = request.filter.unwrap_or_default();
    Ok(ListRecords {
        page: page(request.page_size, &request.page_token)?,
        item: item(&asked)?,
        filter: filter(asked)?,
    })
}

/// A page of audit records.
#[must_use]
pub fn records(listed: Listed<(u64, AuditRecord)>) -> ListRecordsResponse {
    ListRecordsResponse {
        entries: entries(listed.entries),
        next_page_token: token(listed.next),
    }
}

fn entries(records: Vec<(u64, AuditRecord)>) -> Vec<AuditEntry> {
    let entry = |(index, record)| AuditEntry {
        index,
        record: Some(record),
    };
    records.into_iter().map(entry).collect()
}

/// What a TailRecords asks for.
///
/// # Errors
/// As [`list_records`].
pub fn tail(request: TailRecordsRequest) -> Result<Tail, Failure> {
    let asked = request.filter.unwrap_or_default();
    Ok(Tail {
        start: request.start_index,
        item: item(&asked)?,
        filter: filter(asked)?,
        follow: request.follow,
    })
}

/// Some records of a tail.
#[must_use]
pub fn step(step: Step) -> TailRecordsResponse {
    TailRecordsResponse {
        entries: entries(step.records),
        next_index: step.next,
    }
}

/// What a GetCheckpoint asks for.
///
/// # Errors
/// Never.
pub fn get_checkpoint(_request: GetCheckpointRequest) -> Result<ReadCheckpoint, Failure> {
    Ok(ReadCheckpoint)
}

/// The newest checkpoint.
#[must_use]
pub fn checkpoint(texts: CheckpointTexts) -> GetCheckpointResponse {
    GetCheckpointResponse {
        checkpoint: texts.note,
        verifier_key: texts.verifier_key,
    }
}

/// What a ProveRecord asks for.
///
/// # Errors
/// As [`list_records`].
pub fn prove_record(request: ProveRecordRequest) -> Result<ProveRecord, Failure> {
    let leaf = match request.leaf_hash.as_ref() {
        [] => None,
        bytes => Some(Hash::from_bytes(bytes.try_into().map_err(|_| {
            Failure::invalid("leaf_hash", "not the 32 bytes of a leaf hash")
        })?)),
    };
    Ok(ProveRecord {
        index: request.index,
        leaf,
    })
}

/// The proof of a record.
#[must_use]
pub fn record_proof(texts: ProofTexts) -> ProveRecordResponse {
    ProveRecordResponse {
        proof: texts.proof,
        verifier_key: texts.verifier_key,
    }
}

/// What a ProveConsistency asks for.
///
/// # Errors
/// As [`list_records`].
pub fn prove_growth(request: ProveConsistencyRequest) -> Result<ProveGrowth, Failure> {
    if request.checkpoint.len() > MAX_NOTE_BYTES {
        return Err(Failure::invalid("checkpoint", "longer than a signed note"));
    }
    Ok(ProveGrowth {
        checkpoint: request.checkpoint,
    })
}

/// The proof of consistency.
#[must_use]
pub fn growth_proof(texts: ProofTexts) -> ProveConsistencyResponse {
    ProveConsistencyResponse {
        proof: texts.proof,
        verifier_key: texts.verifier_key,
    }
}

fn filter(asked: AuditFilter) -> Result<Filter, Failure> {
    let number = |value: u64| (value != 0).then_some(value);
    let decision = Decision::try_from(asked.decision)
        .map_err(|_| Failure::invalid("filter.decision", "not a decision"))?;
    let request_id = match asked.request_id.as_ref() {
        [] => None,
        bytes => Some(
            bytes
                .try_into()
                .map_err(|_| Failure::invalid("filter.request_id", "not the 16 bytes of an id"))?,
        ),
    };
    if asked.end_time_us != 0 && asked.end_time_us <= asked.start_time_us {
        return Err(Failure::invalid(
            "filter.end_time_us",
            "not later than the start",
        ));
    }
    Ok(Filter {
        from_us: number(asked.start_time_us),
        to_us: number(asked.end_time_us),
        principal: text("filter.principal", asked.principal)?.map(PrincipalFilter::Exact),
        tenant: text("filter.tenant", asked.tenant)?,
        key: text("filter.key", asked.key)?,
        field: text("filter.field", asked.field)?,
        action: text("filter.action", asked.action)?,
        decision: (decision != Decision::Unspecified).then_some(decision),
        rpc: text("filter.rpc", asked.rpc)?,
        rule_kind: text("filter.rule", asked.rule)?,
        // Only the service can make it, of what `item` gives.
        item: None,
        request_id,
        only_failed: asked.failed,
    })
}

/// The item that records have to be about. Its hash is bound to one key and one field, so that both have to be named in full.
fn item(asked: &AuditFilter) -> Result<Option<Sought>, Failure> {
    let Some(item) = &asked.item else {
        return Ok(None);
    };
    if !asked.key.starts_with("tenants/") {
        return Err(Failure::invalid(
            "filter.key",
            "an item is looked for under one key: give its full name, `tenants/{tenant}/keys/{key}`",
        ));
    }
    Ok(Some(Sought {
        key: key_name("filter.key", asked.key.clone())?,
        field: field_name(asked.field.clone()).map_err(|_| {
            Failure::invalid(
                "filter.field",
                "an item is looked for in one field: give its whole name",
            )
        })?,
        context: context(&item.context)?,
    }))
}

fn text(field: &'static str, value: String) -> Result<Option<String>, Failure> {
    if value.len() > MAX_FILTER_BYTES {
        return Err(Failure::invalid(field, "longer than any record has it"));
    }
    Ok((!value.is_empty()).then_some(value))
}
