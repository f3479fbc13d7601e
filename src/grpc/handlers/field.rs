//! The streams of `fieldkeep.v1.FieldService`.

use fieldkeep_proto::v1::field_service_server::FieldService;
use fieldkeep_proto::v1::{
    BatchDecryptRequest, BatchDecryptResponse, BatchEncryptRequest, BatchEncryptResponse,
    BatchReEncryptRequest, BatchReEncryptResponse, DecryptRequest, DecryptResponse,
    DecryptStreamResponse, EncryptRequest, EncryptResponse, EncryptStreamResponse,
    ReEncryptRequest, ReEncryptResponse, ReEncryptStreamResponse,
};
use tonic::{Request, Response, Status};

use super::Handlers;
use crate::grpc::convert::batch;
use crate::grpc::status;
use crate::grpc::stream::{self, Kind, Replies};
use crate::service::failure::Failure;

#[tonic::async_trait]
impl FieldService for Handlers {
    async fn encrypt(
        &self,
        _: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        Err(not_here())
    }

    async fn decrypt(
        &self,
        _: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        Err(not_here())
    }

    async fn re_encrypt(
        &self,
        _: Request<ReEncryptRequest>,
    ) -> Result<Response<ReEncryptResponse>, Status> {
        Err(not_here())
    }

    async fn batch_encrypt(
        &self,
        _: Request<BatchEncryptRequest>,
    ) -> Result<Response<BatchEncryptResponse>, Status> {
        Err(not_here())
    }

    async fn batch_decrypt(
        &self,
        _: Request<BatchDecryptRequest>,
    ) -> Result<Response<BatchDecryptResponse>, Status> {
        Err(not_here())
    }

    async fn batch_re_encrypt(
        &self,
        _: Request<BatchReEncryptRequest>,
    ) -> Result<Response<BatchReEncryptResponse>, Status> {
        Err(not_here())
    }

    type EncryptStreamStream = Replies<EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        request: Request<tonic::Streaming<BatchEncryptRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        let kind = Kind {
            parse: batch::encrypt,
            reply: |id, outcome| match outcome.map(batch::encrypted) {
                Ok(batch) => EncryptStreamResponse {
                    request_id: id.request_id,
                    error: None,
                    results: batch.results,
                    receipt: id.receipt,
                },
                Err(error) => EncryptStreamResponse {
                    request_id: id.request_id,
                    error: Some(error),
                    ..Default::default()
                },
            },
        };
        stream::answer_all(request.extensions(), kind)
    }

    type DecryptStreamStream = Replies<DecryptStreamResponse>;

    async fn decrypt_stream(
        &self,
        request: Request<tonic::Streaming<BatchDecryptRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        let kind = Kind {
            parse: batch::decrypt,
            reply: |id, outcome| match outcome.map(batch::decrypted) {
                Ok(batch) => DecryptStreamResponse {
                    request_id: id.request_id,
                    error: None,
                    results: batch.results,
                    receipt: id.receipt,
                },
                Err(error) => DecryptStreamResponse {
                    request_id: id.request_id,
                    error: Some(error),
                    ..Default::default()
                },
            },
        };
        stream::answer_all(request.extensions(), kind)
    }

    type ReEncryptStreamStream = Replies<ReEncryptStreamResponse>;

    async fn re_encrypt_stream(
        &self,
        request: Request<tonic::Streaming<BatchReEncryptRequest>>,
    ) -> Result<Response<Self::ReEncryptStreamStream>, Status> {
        let kind = Kind {
            parse: batch::reencrypt,
            reply: |id, outcome| match outcome.map(batch::reencrypted) {
                Ok(batch) => ReEncryptStreamResponse {
                    request_id: id.request_id,
                    error: None,
                    results: batch.results,
                    receipt: id.receipt,
                },
                Err(error) => ReEncryptStreamResponse {
                    request_id: id.request_id,
                    error: Some(error),
                    ..Default::default()
                },
            },
        };
        stream::answer_all(request.extensions(), kind)
    }
}

/// The gate answers unary calls itself, see [`crate::grpc::unary`].
fn not_here() -> Status {
    status::of_failure(&Failure::internal("a unary call that passed the gate"))
}
