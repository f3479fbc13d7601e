//! Compiles the `.proto` files with protox, so that no system protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;

const FILES: &[&str] = &[
    "fieldkeep/v1/types.proto",
    "fieldkeep/v1/field.proto",
    "fieldkeep/v1/key.proto",
    "fieldkeep/v1/tenant.proto",
    "fieldkeep/v1/access.proto",
    "fieldkeep/v1/api_key.proto",
    "fieldkeep/v1/issuer.proto",
    "fieldkeep/v1/mask.proto",
    "fieldkeep/v1/limit.proto",
    "fieldkeep/v1/audit.proto",
    "fieldkeep/v1/system.proto",
];

/// Messages whose own fields are plaintext, context values or tokens; `src/redacted.rs` has their `Debug`.
const SECRET: &[&str] = &[
    ".fieldkeep.v1.ContextPair",
    ".fieldkeep.v1.EncryptRequest",
    ".fieldkeep.v1.EncryptItem",
    ".fieldkeep.v1.DecryptResponse",
    ".fieldkeep.v1.DecryptResult",
    ".fieldkeep.v1.CreateApiKeyResponse",
    ".fieldkeep.v1.RotateApiKeyResponse",
    ".fieldkeep.v1.CreateJoinTokenResponse",
    ".fieldkeep.v1.EnrollRequest",
    ".fieldkeep.v1.CheckTokenRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=fieldkeep");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("fieldkeep.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .skip_debug(SECRET)
        .compile_fds(descriptors)?;
    Ok(())
}
