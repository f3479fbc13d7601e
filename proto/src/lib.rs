//! The protobuf messages and gRPC services of Fieldkeep.
//!
//! The `.proto` files beside this crate are the reference; `bytes` fields are [`bytes::Bytes`].

mod redacted;

/// Package `fieldkeep.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("fieldkeep.v1");

    /// The encoded `FileDescriptorSet` of the package, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/fieldkeep.bin"));
}
