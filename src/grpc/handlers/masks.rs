//! The service of masks.

use fieldkeep_proto::v1::mask_service_server::MaskService;
use fieldkeep_proto::v1::{
    ListMasksRequest, ListMasksResponse, Mask, RemoveMaskRequest, RemoveMaskResponse,
    SetMaskRequest,
};
use tonic::{Request, Response, Status};

use super::{Handlers, take};
use crate::grpc::convert::masks;
use crate::grpc::status::respond;

#[tonic::async_trait]
impl MaskService for Handlers {
    async fn set_mask(&self, request: Request<SetMaskRequest>) -> Result<Response<Mask>, Status> {
        let (call, parsed) = take(request, masks::set_mask)?;
        respond(self.service.perform(call, parsed).await, masks::mask)
    }

    async fn list_masks(
        &self,
        request: Request<ListMasksRequest>,
    ) -> Result<Response<ListMasksResponse>, Status> {
        let (call, parsed) = take(request, masks::list_masks)?;
        respond(self.service.perform(call, parsed).await, masks::masks)
    }

    async fn remove_mask(
        &self,
        request: Request<RemoveMaskRequest>,
    ) -> Result<Response<RemoveMaskResponse>, Status> {
        let (call, parsed) = take(request, masks::remove_mask)?;
        respond(self.service.perform(call, parsed).await, |()| {
            RemoveMaskResponse {}
        })
    }
}
