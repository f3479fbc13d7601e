//! The service of auditors.

use fieldkeep_proto::v1::audit_service_server::AuditService;
use fieldkeep_proto::v1::{
    GetCheckpointRequest, GetCheckpointResponse, ListRecordsRequest, ListRecordsResponse,
    ProveConsistencyRequest, ProveConsistencyResponse, ProveRecordRequest, ProveRecordResponse,
    TailRecordsRequest, TailRecordsResponse,
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

/// The records of a tail as they go out.
type Steps = BoxStream<'static, Result<TailRecordsResponse, Status>>;

#[tonic::async_trait]
impl AuditService for Handlers {
    type TailRecordsStream = Steps;

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
        Err(failure @ Failure::Internal(_)) => Some((Err(status::of_failure(&failure)), None)),
        // A right that was lost is a refusal as any other.
        Err(failure) => {
            let refusal = service.refuse(call.clone(), failure).await;
            Some((Err(status::of_refusal(&refusal)), None))
        }
    }
}
