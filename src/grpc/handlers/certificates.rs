//! The service of clients' certificates.

use fieldkeep_proto::v1::certificate_service_server::CertificateService;
use fieldkeep_proto::v1::{
    AddCaRequest, CaRoot, CreateJoinTokenRequest, CreateJoinTokenResponse, EnrollRequest,
    EnrollResponse, IssueCertificateResponse, ListCasRequest, ListCasResponse,
    ListRevocationsRequest, ListRevocationsResponse, RemoveCaRequest, RemoveCaResponse,
    RenewCertificateRequest, RevokeCertificateRequest, RevokeCertificateResponse,
};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::{access, certificates};
use crate::grpc::status::respond;

#[tonic::async_trait]
impl CertificateService for Handlers {
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let (call, parsed) = take(request, certificates::create_join_token)?;
        let made = self.service.perform(call, parsed).await;
        respond(made, certificates::created_token)
    }

    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let (call, parsed) = take(request, certificates::enroll)?;
        let enrolled = self.service.enter(call, parsed).await;
        respond(enrolled, certificates::enrolled)
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let (call, parsed) = take(request, certificates::renew)?;
        respond(self.service.enter(call, parsed).await, access::issued)
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        let (call, parsed) = take(request, certificates::revoke)?;
        let revoked = self.service.perform(call, parsed).await;
        respond(revoked, certificates::revoked)
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        let (call, parsed) = take(request, certificates::list_revocations)?;
        let listed = self.service.perform(call, parsed).await;
        respond(listed, certificates::revocations)
    }

    async fn add_ca(&self, request: Request<AddCaRequest>) -> Result<Response<CaRoot>, Status> {
        let (call, parsed) = take(request, certificates::add_ca)?;
        respond(self.service.perform(call, parsed).await, certificates::ca)
    }

    async fn list_cas(
        &self,
        request: Request<ListCasRequest>,
    ) -> Result<Response<ListCasResponse>, Status> {
        let (call, parsed) = take(request, certificates::list_cas)?;
        respond(self.service.perform(call, parsed).await, certificates::cas)
    }

    async fn remove_ca(
        &self,
        request: Request<RemoveCaRequest>,
    ) -> Result<Response<RemoveCaResponse>, Status> {
        let (call, parsed) = take(request, certificates::remove_ca)?;
        let removed = self.service.perform(call, parsed).await;
        respond(removed, certificates::removed_ca)
    }
}
