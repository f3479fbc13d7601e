//! The service of limits.

use fieldkeep_proto::v1::limit_service_server::LimitService;
use fieldkeep_proto::v1::{
    GetUsageRequest, GetUsageResponse, Limit, ListLimitsRequest, ListLimitsResponse,
    RemoveLimitRequest, RemoveLimitResponse, SetLimitRequest,
};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::limits;
use crate::grpc::status::respond;
use crate::service::limit::ReadUsage;

#[tonic::async_trait]
impl LimitService for Handlers {
    async fn set_limit(
        &self,
        request: Request<SetLimitRequest>,
    ) -> Result<Response<Limit>, Status> {
        let (call, parsed) = take(request, limits::set_limit)?;
        respond(self.service.perform(call, parsed).await, limits::limit)
    }

    async fn list_limits(
        &self,
        request: Request<ListLimitsRequest>,
    ) -> Result<Response<ListLimitsResponse>, Status> {
        let (call, parsed) = take(request, limits::list_limits)?;
        respond(self.service.perform(call, parsed).await, limits::limits)
    }

    async fn remove_limit(
        &self,
        request: Request<RemoveLimitRequest>,
    ) -> Result<Response<RemoveLimitResponse>, Status> {
        let (call, parsed) = take(request, limits::remove_limit)?;
        let removed = self.service.perform(call, parsed).await;
        respond(removed, |()| RemoveLimitResponse {})
    }

    async fn get_usage(
        &self,
        request: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        let (call, parsed) = take(request, |_| Ok(ReadUsage))?;
        respond(self.service.perform(call, parsed).await, limits::usage)
    }
}
