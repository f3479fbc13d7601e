//! `fieldkeep.v1.FieldService`.

use fieldkeep_proto::v1::field_service_server::FieldService;
use fieldkeep_proto::v1::{
    BatchDecryptRequest, BatchDecryptResponse, BatchEncryptRequest, BatchEncryptResponse,
    BatchReEncryptRequest, BatchReEncryptResponse, DecryptRequest, DecryptResponse,
    DecryptStreamResponse, EncryptRequest, EncryptResponse, EncryptStreamResponse,
    ReEncryptRequest, ReEncryptResponse, ReEncryptStreamResponse,
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{Handlers, split, take};
use crate::grpc::convert::{batch, field, request_size};
use crate::grpc::status::respond;
use crate::grpc::stream::{self, Kind, Replies};
use crate::service::Limits;
use crate::service::call::Call;
use crate::service::failure::Failure;
use crate::service::offload::Weight;

#[tonic::async_trait]
impl FieldService for Handlers {
    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let limits = self.service.core().limits();
        let (call, parsed) = take(request, |message| field::encrypt(message, limits))?;
        respond(self.service.perform(call, parsed).await, field::encrypted)
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let limits = self.service.core().limits();
        let (call, parsed) = take(request, |message| field::decrypt(message, limits))?;
        respond(self.service.perform(call, parsed).await, field::decrypted)
    }

    async fn re_encrypt(
        &self,
        request: Request<ReEncryptRequest>,
    ) -> Result<Response<ReEncryptResponse>, Status> {
        let limits = self.service.core().limits();
        let (call, parsed) = take(request, |message| field::reencrypt(message, limits))?;
        respond(self.service.perform(call, parsed).await, field::reencrypted)
    }

    async fn batch_encrypt(
        &self,
        request: Request<BatchEncryptRequest>,
    ) -> Result<Response<BatchEncryptResponse>, Status> {
        let (call, message) = split(request)?;
        let items = message.items.len();
        let parsed = self.parse(&call, message, items, batch::encrypt).await;
        respond(self.service.perform(call, parsed).await, batch::encrypted)
    }

    async fn batch_decrypt(
        &self,
        request: Request<BatchDecryptRequest>,
    ) -> Result<Response<BatchDecryptResponse>, Status> {
        let (call, message) = split(request)?;
        let items = message.items.len();
        let parsed = self.parse(&call, message, items, batch::decrypt).await;
        respond(self.service.perform(call, parsed).await, batch::decrypted)
    }

    async fn batch_re_encrypt(
        &self,
        request: Request<BatchReEncryptRequest>,
    ) -> Result<Response<BatchReEncryptResponse>, Status> {
        let (call, message) = split(request)?;
        let items = message.items.len();
        let parsed = self.parse(&call, message, items, batch::reencrypt).await;
        respond(self.service.perform(call, parsed).await, batch::reencrypted)
    }

    type EncryptStreamStream = Replies<EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        request: Request<tonic::Streaming<BatchEncryptRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        let kind = Kind {
            parse: batch::encrypt,
            reply: |request_id, outcome| match outcome.map(batch::encrypted) {
                Ok(batch) => EncryptStreamResponse {
                    request_id,
                    error: None,
                    results: batch.results,
                },
                Err(error) => EncryptStreamResponse {
                    request_id,
                    error: Some(error),
                    results: Vec::new(),
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
            reply: |request_id, outcome| match outcome.map(batch::decrypted) {
                Ok(batch) => DecryptStreamResponse {
                    request_id,
                    error: None,
                    results: batch.results,
                },
                Err(error) => DecryptStreamResponse {
                    request_id,
                    error: Some(error),
                    results: Vec::new(),
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
            reply: |request_id, outcome| match outcome.map(batch::reencrypted) {
                Ok(batch) => ReEncryptStreamResponse {
                    request_id,
                    error: None,
                    results: batch.results,
                },
                Err(error) => ReEncryptStreamResponse {
                    request_id,
                    error: Some(error),
                    results: Vec::new(),
                },
            },
        };
        stream::answer_all(request.extensions(), kind)
    }
}

impl Handlers {
    /// Parses a batch, off this thread if it is large, which is done only for callers who may do what the RPC is for.
    async fn parse<M: Message + 'static, O: Send + 'static>(
        &self,
        call: &Call,
        message: M,
        items: usize,
        convert: fn(M, &Limits) -> Result<O, Failure>,
    ) -> Result<O, Failure> {
        let arrival = self.service.arrive(call);
        let parsed = self.parse_admitted(call, message, items, convert).await;
        arrival.end();
        parsed
    }

    async fn parse_admitted<M: Message + 'static, O: Send + 'static>(
        &self,
        call: &Call,
        message: M,
        items: usize,
        convert: fn(M, &Limits) -> Result<O, Failure>,
    ) -> Result<O, Failure> {
        let limits = *self.service.core().limits();
        let bytes = request_size(&message, call.request_bytes)?;
        let weight = Weight { bytes, items };
        if weight.is_large() {
            self.service.admit(call)?;
        }
        self.service
            .offload(weight, move || convert(message, &limits))
            .await?
    }
}
