//! `docs/api.md`: made of the comments of the `.proto` files, the table of routes and the list of reasons.
//! `cargo xtask api` writes it; the test fails if it is not current, or if anything has no comment.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use fieldkeep::grpc::routes::{MAX_MESSAGE_BYTES, ROUTES, Route};
use fieldkeep::service::Limits;
use fieldkeep_crypto::context::{MAX_CONTEXT_BYTES, MAX_CONTEXT_PAIRS};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto, field_descriptor_proto::Type,
};

const PACKAGE: &str = "fieldkeep.v1";

/// The fields of descriptors that lead to what is commented (`descriptor.proto`).
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const MEMBERS: i32 = 2;

/// A file, with the comment of everything in it by its path.
struct Commented {
    file: FileDescriptorProto,
    comments: BTreeMap<Vec<i32>, String>,
}

impl Commented {
    fn new(file: FileDescriptorProto) -> Self {
        let info = file.source_code_info.clone().unwrap_or_default();
        let comments = info.location.into_iter().filter_map(|location| {
            let text = location.leading_comments?;
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            Some((location.path, lines.join("\n").trim().to_owned()))
        });
        Self {
            comments: comments.collect(),
            file,
        }
    }

    fn comment(&self, path: &[i32], name: &str) -> String {
        let comment = self.comments.get(path).filter(|text| !text.is_empty());
        let missing = || panic!("{}: `{name}` has no comment", self.file.name());
        comment.unwrap_or_else(missing).clone()
    }

    /// A comment as one cell of a table.
    fn cell(&self, path: &[i32], name: &str) -> String {
        self.comment(path, name)
            .replace('\n', " ")
            .replace('|', "\\|")
    }

    fn service(&self, at: i32, service: &ServiceDescriptorProto, out: &mut String) {
        let name = service.name();
        let about = self.comment(&[SERVICES, at], name);
        write!(out, "## {name}\n\n{about}\n").unwrap();
        for (index, method) in (0..).zip(&service.method) {
            let path = format!("/{PACKAGE}.{name}/{}", method.name());
            let route = ROUTES.iter().find(|route| route.path == path).unwrap();
            let about = self.comment(&[SERVICES, at, MEMBERS, index], method.name());
            let side = |kind: &str, streams| {
                format!("{}{}", if streams { "stream of " } else { "" }, link(kind))
            };
            write!(
                out,
                "\n### {}\n\n{about}\n\n{} → {}  \n{}\n",
                method.name(),
                side(method.input_type(), method.client_streaming()),
                side(method.output_type(), method.server_streaming()),
                bounds(route),
            )
            .unwrap();
        }
        out.push('\n');
    }

    fn message(&self, at: i32, message: &DescriptorProto, out: &mut String) {
        let name = message.name();
        let about = self.comment(&[MESSAGES, at], name);
        write!(out, "### {name}\n\n{about}\n\n").unwrap();
        if message.field.is_empty() {
            return;
        }
        out.push_str("| field | type | no. | |\n|---|---|---|---|\n");
        for (index, field) in (0..).zip(&message.field) {
            let about = self.cell(&[MESSAGES, at, MEMBERS, index], field.name());
            let (name, number) = (field.name(), field.number());
            writeln!(out, "| `{name}` | {} | {number} | {about} |", kind(field)).unwrap();
        }
        out.push('\n');
    }

    fn enumeration(&self, at: i32, values: &EnumDescriptorProto, out: &mut String) {
        let name = values.name();
        let about = self.comment(&[ENUMS, at], name);
        write!(
            out,
            "### {name}\n\n{about}\n\n| value | no. | |\n|---|---|---|\n"
        )
        .unwrap();
        for (index, value) in (0..).zip(&values.value) {
            let about = self.cell(&[ENUMS, at, MEMBERS, index], value.name());
            writeln!(out, "| `{}` | {} | {about} |", value.name(), value.number()).unwrap();
        }
        out.push('\n');
    }
}

fn bounds(route: &Route) -> String {
    let listener = if route.on_data {
        "data and admin"
    } else {
        "admin"
    };
    let each = if route.stream { ", each message" } else { "" };
    let right = if route.open || route.oneself {
        String::from("none")
    } else {
        format!("`{}`", route.action.as_str())
    };
    format!(
        "Right: {right}. Listener: {listener}. Request: at most {}{each}. Deadline: {} s{each}.",
        size(route.body_bytes),
        route.deadline.as_secs(),
    )
}

fn size(bytes: usize) -> String {
    match bytes / 1024 {
        kib @ ..1024 => format!("{kib} KiB"),
        kib => format!("{} MiB", kib / 1024),
    }
}

/// A link to a message or an enum of the package; the name of another.
fn link(full: &str) -> String {
    match full.strip_prefix(&format!(".{PACKAGE}.")) {
        Some(name) => format!("[{name}](#{})", name.to_lowercase()),
        None => format!("`{}`", full.trim_start_matches('.')),
    }
}

fn kind(field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum => link(field.type_name()),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    let repeated = field.label() == prost_types::field_descriptor_proto::Label::Repeated;
    if repeated {
        format!("repeated {kind}")
    } else {
        kind
    }
}

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The reasons of `client/src/reason.rs` with their comments, and the codes that `Failure::verdict` gives them.
fn reasons() -> Vec<(String, String, String)> {
    let failures = source("src/service/failure.rs");
    let codes: BTreeMap<&str, &str> = failures
        .split("(Code::")
        .skip(1)
        .filter_map(|rest| {
            let (code, rest) = rest.split_once(", \"")?;
            Some((rest.split_once('"')?.0, code))
        })
        .collect();
    let list = source("client/src/reason.rs");
    let mut about = Vec::new();
    let mut reasons = Vec::new();
    for line in list.lines() {
        if let Some(comment) = line.strip_prefix("/// ") {
            about.push(comment);
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().unwrap();
            let code = codes.get(name);
            let code = code.unwrap_or_else(|| panic!("no failure has the reason `{name}`"));
            reasons.push((name.to_owned(), screaming(code), about.join(" ")));
            about.clear();
        }
    }
    assert_eq!(
        reasons.len(),
        codes.len(),
        "a failure has a reason that is not listed"
    );
    reasons
}

/// `InvalidArgument` as `INVALID_ARGUMENT`.
fn screaming(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

fn introduction(out: &mut String) {
    let limits = Limits::default();
    write!(
        out,
        "\
<!-- Written by `cargo xtask api` from proto/, src/grpc/routes.rs and client/src/reason.rs. Change those. -->

# API reference

Package `{PACKAGE}`, gRPC over HTTP/2 and mutual TLS 1.3. The `.proto` files are in [proto/](../proto/fieldkeep/v1); the admin listener has reflection, both have
`grpc.health.v1`. The caller, and its tenant, is who its certificate says. The Rust SDK wraps all of this.

- **Names**: `[a-z0-9][a-z0-9._-]{{0,62}}`, in resource names such as `tenants/{{tenant}}/keys/{{key}}/versions/{{version}}`; `{{key}}` alone is a key of the caller's own tenant.
- **Request ids**: every reply and every error has the call's id in the metadata `fieldkeep-request-id`; it is in the audit record. The field `request_id` of a change is another: chosen by
  the caller, it makes a repeated call give the first outcome.
- **Pages**: `page_size` and `page_token`; an empty `next_page_token` ends the list.
- **Deadlines**: a caller's `grpc-timeout` counts if it is shorter than the RPC's own. A call that runs out of time ends with DEADLINE_EXCEEDED; a change may have happened all the same.
- **Traces**: W3C `traceparent` metadata is the parent of the call's span, if the server sends traces.

## Limits

| what | at most |
|---|---|
| plaintext of a field | {} KiB |
| items of a batch | {} |
| context | {MAX_CONTEXT_PAIRS} pairs, {MAX_CONTEXT_BYTES} bytes encoded |
| a message on the wire, both ways | {} MiB |

The longest request of each RPC is with the RPC. The size of a reply is checked before work starts. Beyond a limit the call is refused with the reason that names it.

## Errors

An error is a `google.rpc.Status` with a code, a message for people, and `google.rpc.ErrorInfo` of the domain `fieldkeep`, whose `reason` is one of these. They are never renamed and
never mean anything else; new ones may come. `google.rpc.RetryInfo` says how long to wait, if waiting helps. Items of batches and messages of streams fail by themselves, with the same reasons in [ItemError](#itemerror). A call that
failed with UNAVAILABLE may be repeated a little later.

| reason | code | |
|---|---|---|
",
        limits.field_bytes / 1024,
        limits.batch_items,
        MAX_MESSAGE_BYTES / 1024 / 1024,
    )
    .unwrap();
    for (reason, code, about) in reasons() {
        writeln!(out, "| `{reason}` | {code} | {about} |").unwrap();
    }
    out.push('\n');
}

fn reference() -> String {
    let files = FileDescriptorSet::decode(fieldkeep_proto::v1::FILE_DESCRIPTOR_SET).unwrap();
    let files: Vec<Commented> = files
        .file
        .into_iter()
        .filter(|file| file.package() == PACKAGE)
        .map(Commented::new)
        .collect();
    let mut out = String::new();
    introduction(&mut out);
    for file in &files {
        for (at, service) in (0..).zip(&file.file.service) {
            file.service(at, service, &mut out);
        }
    }
    out.push_str("## Messages\n\n");
    for file in &files {
        for (at, message) in (0..).zip(&file.file.message_type) {
            assert!(message.nested_type.is_empty() && message.enum_type.is_empty());
            file.message(at, message, &mut out);
        }
        for (at, values) in (0..).zip(&file.file.enum_type) {
            file.enumeration(at, values, &mut out);
        }
    }
    out.trim_end().to_owned() + "\n"
}

#[test]
fn the_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let reference = reference();
    if std::env::var_os("FIELDKEEP_UPDATE_API").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == reference,
        "docs/api.md is not current: run `cargo xtask api`"
    );
}
