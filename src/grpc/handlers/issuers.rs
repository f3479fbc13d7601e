//! The service of issuers of tokens.

use fieldkeep_proto::v1::issuer_service_server::IssuerService;
use fieldkeep_proto::v1::{
    CheckTokenRequest, CheckTokenResponse, GetIssuerRequest, Issuer, ListIssuersRequest,
    ListIssuersResponse, RemoveIssuerRequest, RemoveIssuerResponse, SetIssuerRequest,
};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::issuers;
use crate::grpc::status::respond;

#[tonic::async_trait]
impl IssuerService for Handlers {
    async fn set_issuer(
        &self,
        request: Request<SetIssuerRequest>,
    ) -> Result<Response<Issuer>, Status> {
        let (call, parsed) = take(request, issuers::set)?;
        respond(self.service.perform(call, parsed).await, issuers::was_set)
    }

    async fn get_issuer(
        &self,
        request: Request<GetIssuerRequest>,
    ) -> Result<Response<Issuer>, Status> {
        let (call, parsed) = take(request, issuers::get)?;
        respond(self.service.perform(call, parsed).await, issuers::shown)
    }

    async fn list_issuers(
        &self,
        request: Request<ListIssuersRequest>,
    ) -> Result<Response<ListIssuersResponse>, Status> {
        let (call, parsed) = take(request, issuers::list)?;
        respond(self.service.perform(call, parsed).await, issuers::listed)
    }

    async fn remove_issuer(
        &self,
        request: Request<RemoveIssuerRequest>,
    ) -> Result<Response<RemoveIssuerResponse>, Status> {
        let (call, parsed) = take(request, issuers::remove)?;
        respond(self.service.perform(call, parsed).await, |()| {
            RemoveIssuerResponse {}
        })
    }

    async fn check_token(
        &self,
        request: Request<CheckTokenRequest>,
    ) -> Result<Response<CheckTokenResponse>, Status> {
        let (call, parsed) = take(request, issuers::check)?;
        respond(self.service.perform(call, parsed).await, issuers::checked)
    }
}
