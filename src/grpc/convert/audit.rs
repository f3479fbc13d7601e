//! The messages of `fieldkeep.v1.AuditService`.

use std::collections::VecDeque;

use bytes::Bytes;
use fieldkeep_audit::filter::{Filter, PrincipalFilter};
use fieldkeep_proto::v1::{
    self, AuditEntry, AuditFilter, AuditRecord, Decision, GetCheckpointRequest,
    GetCheckpointResponse, ListRecordsRequest, ListRecordsResponse, MakeReportRequest,
    MakeReportResponse, ProveConsistencyRequest, ProveConsistencyResponse, ProveRecordRequest,
    ProveRecordResponse, TailRecordsRequest, TailRecordsResponse,
};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::note::MAX_NOTE_BYTES;
use fieldkeep_tlog::report::ReportForm;
use fieldkeep_tlog::tree::MAX_SIZE;

use super::{context, field_name, key_name, page, token};
use crate::service::audit::{
    CheckpointTexts, ListRecords, ProofTexts, ProveGrowth, ProveRecord, ReadCheckpoint, Step, Tail,
};
use crate::service::failure::Failure;
use crate::service::items::Sought;
use crate::service::keys::Listed;
use crate::service::report::{MakeReport, SignedReport};

/// The longest text of a filter, bytes: longer ones are in no record.
const MAX_FILTER_BYTES: usize = 512;
/// Bytes of a report in one message.
const CHUNK_BYTES: usize = 256 * 1024;

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

/// What a MakeReport asks for.
///
/// # Errors
/// As [`list_records`].
pub fn make_report(request: MakeReportRequest) -> Result<MakeReport, Failure> {
    let form = match v1::ReportForm::try_from(request.form) {
        Ok(v1::ReportForm::Unspecified | v1::ReportForm::Text) => ReportForm::Text,
        Ok(v1::ReportForm::Json) => ReportForm::Json,
        Ok(v1::ReportForm::Html) => ReportForm::Html,
        Err(_) => return Err(Failure::invalid("form", "not a form of a report")),
    };
    let (from_us, to_us) = (request.start_time_us, request.end_time_us);
    // What a signature can name.
    if from_us.max(to_us) > MAX_SIZE {
        return Err(Failure::invalid("end_time_us", "a time beyond 2^62"));
    }
    if to_us != 0 && to_us <= from_us {
        return Err(Failure::invalid("end_time_us", "not later than the start"));
    }
    Ok(MakeReport {
        from_us,
        to_us: (to_us != 0).then_some(to_us),
        form,
    })
}

/// A report in parts, and its signature behind them.
#[must_use]
pub fn report_parts(signed: SignedReport) -> VecDeque<MakeReportResponse> {
    let SignedReport {
        mut report,
        signature,
    } = signed;
    let mut parts = VecDeque::new();
    while !report.is_empty() {
        parts.push_back(MakeReportResponse {
            chunk: report.split_to(report.len().min(CHUNK_BYTES)),
            signature: String::new(),
        });
    }
    parts.push_back(MakeReportResponse {
        chunk: Bytes::new(),
        signature,
    });
    parts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_range_and_a_form() {
        let request = |start_time_us, end_time_us, form| {
            make_report(MakeReportRequest {
                start_time_us,
                end_time_us,
                form,
            })
        };
        let asked = request(5, 0, 0).unwrap();
        assert_eq!((asked.to_us, asked.form), (None, ReportForm::Text));
        let asked = request(5, MAX_SIZE, v1::ReportForm::Html.into()).unwrap();
        assert_eq!(
            (asked.to_us, asked.form),
            (Some(MAX_SIZE), ReportForm::Html)
        );
        for (malformation, refused) in [
            ("end_at_the_start", request(5, 5, 0)),
            ("end_before_the_start", request(5, 4, 0)),
            ("start_that_no_signature_names", request(MAX_SIZE + 1, 0, 0)),
            ("end_that_no_signature_names", request(5, u64::MAX, 0)),
            ("form_unknown", request(5, 6, 4)),
        ] {
            assert!(
                matches!(refused, Err(Failure::Invalid { .. })),
                "{malformation}"
            );
        }
    }

    #[test]
    fn a_report_goes_out_in_parts_with_its_signature_last() {
        for bytes in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let report = Bytes::from(vec![7; bytes]);
            let parts = report_parts(SignedReport {
                report: report.clone(),
                signature: String::from("signed"),
            });
            assert_eq!(parts.len(), bytes.div_ceil(CHUNK_BYTES) + 1);
            let joined: Vec<u8> = parts.iter().flat_map(|part| part.chunk.clone()).collect();
            assert_eq!(joined, report);
            let signed: Vec<bool> = parts
                .iter()
                .map(|part| !part.signature.is_empty())
                .collect();
            assert_eq!(
                signed.iter().position(|signed| *signed),
                Some(parts.len() - 1)
            );
        }
    }
}
