//! The service of access: grants, groups, questions about both, and certificates.

use fieldkeep_proto::v1::access_service_server::AccessService;
use fieldkeep_proto::v1::{
    AddGroupMemberRequest, CreateGrantRequest, ExplainAccessRequest, ExplainAccessResponse,
    GetGrantRequest, Grant, GroupMember, IssueCertificateRequest, IssueCertificateResponse,
    ListGrantsRequest, ListGrantsResponse, ListGroupMembersRequest, ListGroupMembersResponse,
    ListGroupsRequest, ListGroupsResponse, RemoveGroupMemberRequest, RemoveGroupMemberResponse,
    RevokeGrantRequest, RevokeGrantResponse, WhoCanRequest, WhoCanResponse,
};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::access;
use crate::grpc::status::respond;

#[tonic::async_trait]
impl AccessService for Handlers {
    async fn create_grant(
        &self,
        request: Request<CreateGrantRequest>,
    ) -> Result<Response<Grant>, Status> {
        let (call, parsed) = take(request, access::create_grant)?;
        respond(self.service.perform(call, parsed).await, access::grant)
    }

    async fn get_grant(
        &self,
        request: Request<GetGrantRequest>,
    ) -> Result<Response<Grant>, Status> {
        let (call, parsed) = take(request, access::show_grant)?;
        respond(self.service.perform(call, parsed).await, access::grant)
    }

    async fn list_grants(
        &self,
        request: Request<ListGrantsRequest>,
    ) -> Result<Response<ListGrantsResponse>, Status> {
        let (call, parsed) = take(request, access::list_grants)?;
        respond(self.service.perform(call, parsed).await, access::grants)
    }

    async fn revoke_grant(
        &self,
        request: Request<RevokeGrantRequest>,
    ) -> Result<Response<RevokeGrantResponse>, Status> {
        let (call, parsed) = take(request, access::revoke_grant)?;
        respond(self.service.perform(call, parsed).await, |()| {
            RevokeGrantResponse {}
        })
    }

    async fn add_group_member(
        &self,
        request: Request<AddGroupMemberRequest>,
    ) -> Result<Response<GroupMember>, Status> {
        let (call, parsed) = take(request, access::add_member)?;
        respond(self.service.perform(call, parsed).await, access::added)
    }

    async fn remove_group_member(
        &self,
        request: Request<RemoveGroupMemberRequest>,
    ) -> Result<Response<RemoveGroupMemberResponse>, Status> {
        let (call, parsed) = take(request, access::remove_member)?;
        respond(self.service.perform(call, parsed).await, |_| {
            RemoveGroupMemberResponse {}
        })
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsResponse>, Status> {
        let (call, parsed) = take(request, access::list_groups)?;
        respond(self.service.perform(call, parsed).await, access::groups)
    }

    async fn list_group_members(
        &self,
        request: Request<ListGroupMembersRequest>,
    ) -> Result<Response<ListGroupMembersResponse>, Status> {
        let (call, parsed) = take(request, access::list_members)?;
        respond(self.service.perform(call, parsed).await, access::members)
    }

    async fn explain_access(
        &self,
        request: Request<ExplainAccessRequest>,
    ) -> Result<Response<ExplainAccessResponse>, Status> {
        let (call, parsed) = take(request, access::explain)?;
        respond(self.service.perform(call, parsed).await, access::explained)
    }

    async fn who_can(
        &self,
        request: Request<WhoCanRequest>,
    ) -> Result<Response<WhoCanResponse>, Status> {
        let (call, parsed) = take(request, access::who_can)?;
        respond(self.service.perform(call, parsed).await, access::holders)
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let (call, parsed) = take(request, access::issue_certificate)?;
        respond(self.service.perform(call, parsed).await, access::issued)
    }
}
