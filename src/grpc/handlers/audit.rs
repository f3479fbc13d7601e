//! The service of auditors.

use std::collections::VecDeque;

use fieldkeep_proto::v1::audit_service_server::AuditService;
use fieldkeep_proto::v1::{
    GetCheckpointRequest, GetCheckpointResponse, ListRecordsRequest, ListRecordsResponse,
    MakeReportRequest, MakeReportResponse, ProveConsistencyRequest, ProveConsistencyResponse,
    ProveRecordRequest, ProveRecordResponse, TailRecordsRequest, TailRecordsResponse,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::audit;
use crate::grpc::status::{self, respond};
use crate::service::Service;
use crate::service::audit::Reading;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::perform::permit::Grounds;
use crate::service::report::ReportOrder;

/// The records of a tail as they go out.
type Steps = BoxStream<'static, Result<TailRecordsResponse, Status>>;
/// A report as it goes out.
type ReportParts = BoxStream<'static, Result<MakeReportResponse, Status>>;

#[tonic::async_trait]
impl AuditService for Handlers {
    type TailRecordsStream = Steps;
    type MakeReportStream = ReportParts;

    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let (call, parsed) = take(request, audit::list_records)?;
        respond(self.service.perform(call, parsed).await, audit::records)
    }

    async fn tail_records(
        &self,
        request: Request<TailRecordsRequest>,
    ) -> Result<Response<Steps>, Status> {
        let (call, parsed) = take(request, audit::tail)?;
        let reply = match self.service.perform(call.clone(), parsed).await {
            Ok(reply) => reply,
            Err(refusal) => return Err(status::of_refusal(&refusal)),
        };
        let (reading, request_id, leave) = reply.into_parts();
        let tail = Tail {
            service: self.service.clone(),
            call,
            grounds: leave.into_grounds(),
            reading,
        };
        let steps = stream::unfold(Some(tail), next).boxed();
        Ok(status::with_request_id(Response::new(steps), request_id))
    }

    async fn get_checkpoint(
        &self,
        request: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        let (call, parsed) = take(request, audit::get_checkpoint)?;
        respond(self.service.perform(call, parsed).await, audit::checkpoint)
    }

    async fn prove_record(
        &self,
        request: Request<ProveRecordRequest>,
    ) -> Result<Response<ProveRecordResponse>, Status> {
        let (call, parsed) = take(request, audit::prove_record)?;
        respond(
            self.service.perform(call, parsed).await,
            audit::record_proof,
        )
    }

    async fn prove_consistency(
        &self,
        request: Request<ProveConsistencyRequest>,
    ) -> Result<Response<ProveConsistencyResponse>, Status> {
        let (call, parsed) = take(request, audit::prove_growth)?;
        respond(
            self.service.perform(call, parsed).await,
            audit::growth_proof,
        )
    }

    async fn make_report(
        &self,
        request: Request<MakeReportRequest>,
    ) -> Result<Response<ReportParts>, Status> {
        let (call, parsed) = take(request, audit::make_report)?;
        let performed = self.service.perform(call.clone(), parsed).await;
        let reply = performed.map_err(|refusal| status::of_refusal(&refusal))?;
        let (order, request_id, leave) = reply.into_parts();
        let making = Making {
            service: self.service.clone(),
            call,
            grounds: leave.into_grounds(),
            order: Some(order),
            parts: VecDeque::new(),
        };
        let parts = stream::unfold(Some(making), next_part).boxed();
        Ok(status::with_request_id(Response::new(parts), request_id))
    }
}

struct Tail {
    service: Service,
    call: Call,
    grounds: Option<Grounds>,
    reading: Reading,
}

/// The next message of a tail, which ends after a refusal.
async fn next(tail: Option<Tail>) -> Option<(Result<TailRecordsResponse, Status>, Option<Tail>)> {
    let mut tail = tail?;
    let Tail {
        service,
        call,
        grounds,
        reading,
    } = &mut tail;
    match service.read_on(call, grounds.as_ref(), reading).await {
        Ok(step) => Some((Ok(audit::step(step?)), Some(tail))),
        Err(failure) => Some((Err(ended(service, call, failure).await), None)),
    }
}

/// What a stream ends with that failed on its way. A right that was lost is a refusal as any other.
async fn ended(service: &Service, call: &Call, failure: Failure) -> Status {
    if let Failure::Internal(_) = failure {
        tracing::error!(rpc = call.rpc, error = %failure.detail(), "a call failed for a cause that its caller cannot mend");
        return status::of_failure(&failure);
    }
    status::of_refusal(&service.refuse(call.clone(), failure).await)
}

/// A report that is being made, and then sent.
struct Making {
    service: Service,
    call: Call,
    grounds: Option<Grounds>,
    /// `None` once it is made.
    order: Option<ReportOrder>,
    /// What is not sent yet.
    parts: VecDeque<MakeReportResponse>,
}

impl Making {
    async fn part(&mut self) -> Result<Option<MakeReportResponse>, Failure> {
        let grounds = self.grounds.as_ref();
        if let Some(order) = self.order.take() {
            let made = self.service.make_report(&self.call, grounds, order);
            self.parts = audit::report_parts(made.await?);
        }
        // A caller may take its time, and lose its right meanwhile.
        let before = self.service.before(&self.call);
        self.service.may_leave(&self.call, before, grounds)?;
        Ok(self.parts.pop_front())
    }
}

/// The next message of a report, which ends after a refusal.
async fn next_part(
    making: Option<Making>,
) -> Option<(Result<MakeReportResponse, Status>, Option<Making>)> {
    let mut making = making?;
    match making.part().await {
        Ok(part) => Some((Ok(part?), Some(making))),
        Err(failure) => {
            let status = ended(&making.service, &making.call, failure).await;
            Some((Err(status), None))
        }
    }
}
