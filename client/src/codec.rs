//! A gRPC codec that encodes a shared message, so that a retry needs no copy of a batch.

use std::{marker::PhantomData, sync::Arc};

use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Encodes `Arc<Req>`, decodes `Res`.
pub(crate) struct SharedCodec<Req, Res>(PhantomData<fn(Req) -> Res>);

impl<Req, Res> SharedCodec<Req, Res> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Req, Res> Codec for SharedCodec<Req, Res>
where
    Req: Message + 'static,
    Res: Message + Default + 'static,
{
    type Encode = Arc<Req>;
    type Decode = Res;
    type Encoder = SharedEncoder<Req>;
    type Decoder = MessageDecoder<Res>;

    fn encoder(&mut self) -> Self::Encoder {
        SharedEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// The encoding half of [`SharedCodec`].
pub(crate) struct SharedEncoder<Req>(PhantomData<fn(Req)>);

impl<Req: Message> Encoder for SharedEncoder<Req> {
    type Item = Arc<Req>;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// The decoding half of [`SharedCodec`].
pub(crate) struct MessageDecoder<Res>(PhantomData<fn() -> Res>);

impl<Res: Message + Default> Decoder for MessageDecoder<Res> {
    type Item = Res;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Res>, Status> {
        Res::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(format!("malformed reply: {error}")))
    }
}
