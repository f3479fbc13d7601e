//! From failures to `tonic::Status` with `google.rpc` details, and to the errors of batch items.

use fieldkeep_proto::v1::ItemError;
use fieldkeep_tlog::receipt::Receipt;
use http::{HeaderName, HeaderValue};
use tonic::metadata::MetadataValue;
use tonic::{Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::service::call::RequestId;
use crate::service::failure::Failure;
use crate::service::perform::{Refusal, Reply};

/// The domain of every reason.
pub const DOMAIN: &str = "fieldkeep";
/// The metadata of every reply that holds the call's id in hex.
pub const REQUEST_ID_METADATA: &str = "fieldkeep-request-id";
/// What a caller is told whose call did not end in time.
pub const OUT_OF_TIME: &str = "the call took longer than the caller or the server allows";
/// [`REQUEST_ID_METADATA`] as a header.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_METADATA);

/// The status of a failure, without a call's id.
#[must_use]
pub fn of_failure(failure: &Failure) -> Status {
    let (code, reason) = failure.verdict();
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::new());
    if let Failure::Invalid { field, problem } = failure {
        details.add_bad_request_violation(*field, problem.as_ref());
    }
    if let Some(after) = failure.retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code, failure.to_string(), details)
}

/// The status of a refused call.
#[must_use]
pub fn of_refusal(refusal: &Refusal) -> Status {
    let mut status = of_failure(&refusal.failure);
    set_request_id(&mut status, refusal.request_id);
    status
}

/// Puts a call's id with its status.
pub fn set_request_id(status: &mut Status, request_id: RequestId) {
    status
        .metadata_mut()
        .insert(REQUEST_ID_METADATA, request_id_metadata(request_id));
}

/// The response of a performed call, with `convert` to make its message.
pub fn respond<T, M>(
    outcome: Result<Reply<T>, Refusal>,
    convert: impl FnOnce(T) -> M,
) -> Result<Response<M>, Status> {
    match outcome {
        Ok(reply) => {
            let (value, request_id, held) = reply.into_parts();
            let mut response = with_request_id(Response::new(convert(value)), request_id);
            if let Some(receipt) = held.receipt()
                && let Ok(text) = MetadataValue::try_from(receipt.to_text().as_slice())
            {
                response.metadata_mut().insert(RECEIPT_METADATA, text);
            }
            Ok(response)
        }
        Err(refusal) => Err(of_refusal(&refusal)),
    }
}

/// The response with the id of its call.
pub(super) fn with_request_id<M>(mut response: Response<M>, id: RequestId) -> Response<M> {
    response
        .metadata_mut()
        .insert(REQUEST_ID_METADATA, request_id_metadata(id));
    response
}

/// The error of one item of a batch.
#[must_use]
pub fn item_error(failure: &Failure) -> ItemError {
    let (code, reason) = failure.verdict();
    ItemError {
        code: code.into(),
        reason: reason.to_owned(),
        message: failure.to_string(),
    }
}

/// The metadata with the receipt of a call's record. A caller of `FieldService` asks for it with the same name, whatever its value.
pub const RECEIPT_METADATA: &str = "fieldkeep-receipt";
/// The same, as a header.
pub(super) const RECEIPT: HeaderName = HeaderName::from_static(RECEIPT_METADATA);

/// The text of a receipt.
pub(super) fn receipt_value(receipt: &Receipt) -> HeaderValue {
    // It is made of letters, digits, `:`, `-` and `_`.
    HeaderValue::from_bytes(&receipt.to_text()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A call's id in hex.
pub(super) fn request_id_value(id: RequestId) -> HeaderValue {
    let mut hex = [0; 32];
    data_encoding::HEXLOWER.encode_mut(id.as_bytes(), &mut hex);
    // Hex digits are always a valid value.
    HeaderValue::from_bytes(&hex).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn request_id_metadata(id: RequestId) -> MetadataValue<tonic::metadata::Ascii> {
    MetadataValue::try_from(request_id_value(id).as_bytes())
        .unwrap_or_else(|_| MetadataValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::failure::Opaque;
    use tonic::Code;

    #[test]
    fn a_status_carries_code_reason_and_domain() {
        let status = of_failure(&Failure::KeyNotFound("pii".into()));
        assert_eq!(status.code(), Code::NotFound);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("KEY_NOT_FOUND", "fieldkeep")
        );
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn a_malformed_request_names_the_field() {
        let status = of_failure(&Failure::invalid("context", "two pairs are named `id`"));
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "context");
        assert!(violation.description.contains("two pairs"));
    }

    #[test]
    fn transient_failures_say_when_to_try_again() {
        for failure in [
            Failure::store("x"),
            Failure::AuditUnavailable,
            Failure::ShuttingDown,
        ] {
            let status = of_failure(&failure);
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.get_error_details().retry_info().is_some());
        }
    }

    #[test]
    fn opaque_failures_are_equal_to_the_byte() {
        let a = of_failure(&Failure::DecryptionFailed(Opaque::UnknownHandle));
        let b = of_failure(&Failure::DecryptionFailed(Opaque::DecryptionFailed));
        assert_eq!((a.message(), a.details()), (b.message(), b.details()));
        assert_eq!(
            item_error(&Failure::DecryptionFailed(Opaque::ForeignTenant)),
            item_error(&Failure::DecryptionFailed(Opaque::Malformed))
        );
    }
}
