//! A fake service: the generated server code over mutual TLS, with a script of failures.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fieldkeep_client::{Client, ClientBuilder};
use fieldkeep_proto::v1::{
    self, ContextPair, access_service_server::AccessServiceServer,
    audit_service_server::AuditServiceServer, field_service_server::FieldServiceServer,
    key_service_server::KeyServiceServer, system_service_server::SystemServiceServer,
    tenant_service_server::TenantServiceServer,
};
use prost::Message;
use rustls::ServerConfig;
use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, body::Body, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::Service as _;

use crate::identities::Authority;

/// What happens to a call in place of its answer.
pub(crate) enum Step {
    /// This status is the answer.
    Fail(Status),
    /// There is never an answer.
    Hang,
    /// The right answer, when the test says so.
    Wait(Arc<Notify>),
    /// All connections break.
    Break,
    /// The right answer.
    Answer,
}

/// A call that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) rpc: &'static str,
    /// The `grpc-timeout` header.
    pub(crate) timeout: Duration,
    pub(crate) request_id: String,
    pub(crate) user_agent: String,
    pub(crate) traceparent: String,
    pub(crate) tracestate: String,
    /// The length of the message.
    pub(crate) bytes: usize,
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Step>>,
    calls: Mutex<Vec<Call>>,
    arrival: Notify,
    connections: Mutex<Vec<AbortHandle>>,
    accepted: AtomicU32,
    hanging_up: AtomicBool,
}

/// A running fake service; it ends with the test's runtime.
pub(crate) struct Fake {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Clone)]
struct Handlers(Arc<State>);

impl Fake {
    pub(crate) async fn start() -> Self {
        let authority = Authority::make();
        let tls = authority.server_config("127.0.0.1", &[b"h2"]);
        Self::start_with(authority, tls).await
    }

    pub(crate) async fn start_with(authority: Authority, tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (sender, receiver) = mpsc::channel::<DuplexStream>(8);
        tokio::spawn(accept(
            listener,
            TlsAcceptor::from(tls),
            sender,
            Arc::clone(&state),
        ));
        let handlers = Handlers(Arc::clone(&state));
        let service = tower::service_fn(move |request| route(handlers.clone(), request));
        let incoming = ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>);
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        Self {
            authority,
            address,
            state,
        }
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        self.authority.builder(&self.address.to_string())
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// What happens to the next calls; after that, the right answers.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        *self.state.script.lock().unwrap() = steps.into_iter().collect();
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// Resolves when so many calls have arrived.
    pub(crate) async fn arrived(&self, calls: usize) {
        loop {
            let arrival = self.state.arrival.notified();
            if self.calls().len() >= calls {
                return;
            }
            arrival.await;
        }
    }

    /// TCP connections that were accepted.
    pub(crate) fn accepted(&self) -> u32 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn break_connections(&self) {
        self.state.break_connections();
    }

    /// From now on, connections are closed before the TLS handshake, or not any longer.
    pub(crate) fn hang_up(&self, on: bool) {
        self.state.hanging_up.store(on, Ordering::SeqCst);
    }
}

impl State {
    fn break_connections(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<DuplexStream>,
    state: Arc<State>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        state.accepted.fetch_add(1, Ordering::SeqCst);
        if state.hanging_up.load(Ordering::SeqCst) {
            continue;
        }
        let task = tokio::spawn(serve_connection(tcp, acceptor.clone(), sender.clone()));
        state.connections.lock().unwrap().push(task.abort_handle());
    }
}

/// Carries one TLS connection to the server through a pipe, so that aborting this task breaks the connection.
async fn serve_connection(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<DuplexStream>,
) {
    let Ok(mut tls) = acceptor.accept(tcp).await else {
        return;
    };
    let (mut near, far) = tokio::io::duplex(256 * 1024);
    if sender.send(far).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut tls, &mut near).await;
    }
}

/// Finds the service that a request's path names.
async fn route(
    handlers: Handlers,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible> {
    let limit = 16 * 1024 * 1024;
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    match service {
        "fieldkeep.v1.FieldService" => {
            FieldServiceServer::new(handlers)
                .max_decoding_message_size(limit)
                .max_encoding_message_size(limit)
                .call(request)
                .await
        }
        "fieldkeep.v1.KeyService" => KeyServiceServer::new(handlers).call(request).await,
        "fieldkeep.v1.TenantService" => TenantServiceServer::new(handlers).call(request).await,
        "fieldkeep.v1.AccessService" => AccessServiceServer::new(handlers).call(request).await,
        "fieldkeep.v1.AuditService" => AuditServiceServer::new(handlers).call(request).await,
        "fieldkeep.v1.SystemService" => SystemServiceServer::new(handlers).call(request).await,
        "fieldkeep.v1.CertificateService" => Ok(handlers.refuse_renewal().await.into_http()),
        _ => Ok(Status::unimplemented("no such service").into_http()),
    }
}

/// A status as the service makes it.
pub(crate) fn status(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "fieldkeep", [] as [(String, String); 0]);
    Status::with_error_details(code, message, details)
}

/// The same with a RetryInfo.
pub(crate) fn retry_status(reason: &str, delay: Duration) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(delay));
    details.set_error_info(reason, "fieldkeep", [] as [(String, String); 0]);
    Status::with_error_details(Code::Unavailable, "try again", details)
}

impl Handlers {
    /// Takes every certificate for one of another CA, as the service does with those that it did not sign itself.
    async fn refuse_renewal(&self) -> Status {
        let request = Request::new(v1::RenewCertificateRequest::default());
        let scripted = self.arrive("RenewCertificate", &request, "").await;
        scripted.err().unwrap_or_else(|| {
            let message = "the certificate is of another CA";
            status(Code::InvalidArgument, "INVALID_REQUEST", message)
        })
    }

    /// Notes the call, and does what the script says.
    async fn arrive<T: Message>(
        &self,
        rpc: &'static str,
        request: &Request<T>,
        request_id: &str,
    ) -> Result<(), Status> {
        let text = |name: &str| {
            request
                .metadata()
                .get(name)
                .map_or(String::new(), |value| value.to_str().unwrap().to_owned())
        };
        self.0.calls.lock().unwrap().push(Call {
            rpc,
            timeout: parse_timeout(&text("grpc-timeout")),
            request_id: request_id.to_owned(),
            user_agent: text("user-agent"),
            traceparent: text("traceparent"),
            tracestate: text("tracestate"),
            bytes: request.get_ref().encoded_len(),
        });
        self.0.arrival.notify_waiters();
        let step = self.0.script.lock().unwrap().pop_front();
        match step {
            None | Some(Step::Answer) => Ok(()),
            Some(Step::Fail(status)) => Err(status),
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Wait(go_on)) => {
                go_on.notified().await;
                Ok(())
            }
            Some(Step::Break) => {
                self.0.break_connections();
                std::future::pending().await
            }
        }
    }
}

/// Digits and a unit (H, M, S, m, u, n), as in the gRPC protocol; empty: none.
fn parse_timeout(text: &str) -> Duration {
    if text.is_empty() {
        return Duration::ZERO;
    }
    let (digits, unit) = text.split_at(text.len() - 1);
    let amount: u64 = digits.parse().unwrap();
    match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        _ => Duration::from_nanos(amount),
    }
}

/// The fake's ciphertext: 0xFE, the field and context in text, 0x00, the plaintext.
fn seal(field: &str, context: &[ContextPair], plaintext: &[u8]) -> Bytes {
    let mut pairs: Vec<String> = context
        .iter()
        .map(|pair| format!("{}={}", pair.name, pair.value))
        .collect();
    pairs.sort();
    let mut bytes = vec![0xfe];
    bytes.extend(format!("{field};{}", pairs.join(";")).bytes());
    bytes.push(0);
    bytes.extend(plaintext);
    bytes.into()
}

fn open(field: &str, context: &[ContextPair], ciphertext: &Bytes) -> Result<Bytes, Status> {
    let header = seal(field, context, b"");
    if ciphertext.starts_with(&header) {
        Ok(ciphertext.slice(header.len()..))
    } else {
        Err(status(
            Code::InvalidArgument,
            "DECRYPTION_FAILED",
            "decryption failed",
        ))
    }
}

fn item_error(status: &Status) -> v1::ItemError {
    v1::ItemError {
        code: status.code() as i32,
        reason: status.get_details_error_info().unwrap().reason,
        message: status.message().to_owned(),
    }
}

fn or<'a, T>(own: &'a [T], default: &'a [T]) -> &'a [T] {
    if own.is_empty() { default } else { own }
}

fn or_text<'a>(own: &'a str, default: &'a str) -> &'a str {
    if own.is_empty() { default } else { own }
}

#[tonic::async_trait]
impl v1::field_service_server::FieldService for Handlers {
    async fn encrypt(
        &self,
        request: Request<v1::EncryptRequest>,
    ) -> Result<Response<v1::EncryptResponse>, Status> {
        self.arrive("Encrypt", &request, "").await?;
        let request = request.into_inner();
        Ok(Response::new(v1::EncryptResponse {
            ciphertext: seal(&request.field, &request.context, &request.plaintext),
            version: 1,
        }))
    }

    async fn decrypt(
        &self,
        request: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptResponse>, Status> {
        self.arrive("Decrypt", &request, "").await?;
        let request = request.into_inner();
        let plaintext = open(&request.field, &request.context, &request.ciphertext)?;
        Ok(Response::new(v1::DecryptResponse {
            plaintext,
            masked: false,
        }))
    }

    async fn re_encrypt(
        &self,
        request: Request<v1::ReEncryptRequest>,
    ) -> Result<Response<v1::ReEncryptResponse>, Status> {
        self.arrive("ReEncrypt", &request, "").await?;
        let request = request.into_inner();
        open(&request.field, &request.context, &request.ciphertext)?;
        Ok(Response::new(v1::ReEncryptResponse {
            ciphertext: request.ciphertext,
            version: 2,
            changed: request.destination_key == "other",
        }))
    }

    async fn batch_encrypt(
        &self,
        request: Request<v1::BatchEncryptRequest>,
    ) -> Result<Response<v1::BatchEncryptResponse>, Status> {
        self.arrive("BatchEncrypt", &request, "").await?;
        let request = request.into_inner();
        let mut results: Vec<v1::EncryptResult> = Vec::new();
        for item in &request.items {
            let key = or_text(&item.key, &request.key);
            let field = or_text(&item.field, &request.field);
            results.push(if key == "missing" {
                let error = status(Code::NotFound, "KEY_NOT_FOUND", "there is no key `missing`");
                v1::EncryptResult {
                    error: Some(item_error(&error)),
                    ..Default::default()
                }
            } else {
                v1::EncryptResult {
                    ciphertext: seal(field, or(&item.context, &request.context), &item.plaintext),
                    version: 7,
                    error: None,
                }
            });
        }
        if request.field == "short.reply" {
            results.pop();
        }
        Ok(Response::new(v1::BatchEncryptResponse { results }))
    }

    async fn batch_decrypt(
        &self,
        request: Request<v1::BatchDecryptRequest>,
    ) -> Result<Response<v1::BatchDecryptResponse>, Status> {
        self.arrive("BatchDecrypt", &request, "").await?;
        let request = request.into_inner();
        let results = request.items.iter().map(|item| {
            let field = or_text(&item.field, &request.field);
            match open(field, or(&item.context, &request.context), &item.ciphertext) {
                Ok(plaintext) => v1::DecryptResult {
                    plaintext,
                    ..Default::default()
                },
                Err(error) => v1::DecryptResult {
                    error: Some(item_error(&error)),
                    ..Default::default()
                },
            }
        });
        Ok(Response::new(v1::BatchDecryptResponse {
            results: results.collect(),
        }))
    }

    async fn batch_re_encrypt(
        &self,
        request: Request<v1::BatchReEncryptRequest>,
    ) -> Result<Response<v1::BatchReEncryptResponse>, Status> {
        self.arrive("BatchReEncrypt", &request, "").await?;
        let request = request.into_inner();
        let results = request.items.iter().map(|item| {
            let field = or_text(&item.field, &request.field);
            match open(field, or(&item.context, &request.context), &item.ciphertext) {
                Ok(_) => v1::ReEncryptResult {
                    ciphertext: item.ciphertext.clone(),
                    version: 2,
                    changed: or_text(&item.destination_key, &request.destination_key) == "other",
                    error: None,
                },
                Err(error) => v1::ReEncryptResult {
                    error: Some(item_error(&error)),
                    ..Default::default()
                },
            }
        });
        Ok(Response::new(v1::BatchReEncryptResponse {
            results: results.collect(),
        }))
    }

    type EncryptStreamStream = Answers<v1::EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        request: Request<tonic::Streaming<v1::BatchEncryptRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        let handlers = self.clone();
        let answers = request.into_inner().then(move |message| {
            let handlers = handlers.clone();
            async move {
                let answer = handlers.batch_encrypt(Request::new(message?)).await;
                let (results, error) = in_place(answer)?;
                Ok(v1::EncryptStreamResponse {
                    request_id: Bytes::new(),
                    receipt: Bytes::new(),
                    results: results.map_or(Vec::new(), |reply| reply.results),
                    error,
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type DecryptStreamStream = Answers<v1::DecryptStreamResponse>;

    async fn decrypt_stream(
        &self,
        request: Request<tonic::Streaming<v1::BatchDecryptRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        let handlers = self.clone();
        let answers = request.into_inner().then(move |message| {
            let handlers = handlers.clone();
            async move {
                let answer = handlers.batch_decrypt(Request::new(message?)).await;
                let (results, error) = in_place(answer)?;
                Ok(v1::DecryptStreamResponse {
                    request_id: Bytes::new(),
                    receipt: Bytes::new(),
                    results: results.map_or(Vec::new(), |reply| reply.results),
                    error,
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type ReEncryptStreamStream = Answers<v1::ReEncryptStreamResponse>;

    async fn re_encrypt_stream(
        &self,
        request: Request<tonic::Streaming<v1::BatchReEncryptRequest>>,
    ) -> Result<Response<Self::ReEncryptStreamStream>, Status> {
        let handlers = self.clone();
        let answers = request.into_inner().then(move |message| {
            let handlers = handlers.clone();
            async move {
                let answer = handlers.batch_re_encrypt(Request::new(message?)).await;
                let (results, error) = in_place(answer)?;
                Ok(v1::ReEncryptStreamResponse {
                    request_id: Bytes::new(),
                    receipt: Bytes::new(),
                    results: results.map_or(Vec::new(), |reply| reply.results),
                    error,
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// A failure of a message is answered in its place; that the service is not available ends the stream.
fn in_place<T>(
    answer: Result<Response<T>, Status>,
) -> Result<(Option<T>, Option<v1::ItemError>), Status> {
    match answer {
        Ok(reply) => Ok((Some(reply.into_inner()), None)),
        Err(status) if status.code() == Code::Unavailable => Err(status),
        Err(status) => Ok((None, Some(item_error(&status)))),
    }
}

fn key(name: &str) -> Response<v1::Key> {
    Response::new(v1::Key {
        name: name.to_owned(),
        ..Default::default()
    })
}

/// A page of the numbers below 5, and the next page's token.
fn page(size: u32, token: &str) -> (Vec<u32>, String) {
    let first: u32 = if token.is_empty() {
        0
    } else {
        token.parse().unwrap()
    };
    let end = (first + if size == 0 { 2 } else { size }).min(5);
    let next = if end < 5 {
        end.to_string()
    } else {
        String::new()
    };
    ((first..end).collect(), next)
}

#[tonic::async_trait]
impl v1::key_service_server::KeyService for Handlers {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("CreateKey", &request, &request.get_ref().request_id)
            .await?;
        Ok(key(&request.get_ref().name))
    }

    async fn get_key(
        &self,
        request: Request<v1::GetKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("GetKey", &request, "").await?;
        Ok(key(&request.get_ref().name))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        self.arrive("ListKeys", &request, "").await?;
        let request = request.into_inner();
        if request.parent == "tenants/loop" {
            return Ok(Response::new(v1::ListKeysResponse {
                keys: Vec::new(),
                next_page_token: "again".to_owned(),
            }));
        }
        let (numbers, next_page_token) = page(request.page_size, &request.page_token);
        let keys = numbers
            .into_iter()
            .map(|n| key(&format!("{}/keys/k{n}", request.parent)).into_inner())
            .collect();
        Ok(Response::new(v1::ListKeysResponse {
            keys,
            next_page_token,
        }))
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("RotateKey", &request, &request.get_ref().request_id)
            .await?;
        Ok(key(&request.get_ref().name))
    }

    async fn enable_key(
        &self,
        request: Request<v1::EnableKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("EnableKey", &request, &request.get_ref().request_id)
            .await?;
        Ok(key(&request.get_ref().name))
    }

    async fn disable_key(
        &self,
        request: Request<v1::DisableKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("DisableKey", &request, &request.get_ref().request_id)
            .await?;
        Ok(key(&request.get_ref().name))
    }

    async fn enable_key_version(
        &self,
        request: Request<v1::EnableKeyVersionRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("EnableKeyVersion", &request, &request.get_ref().request_id)
            .await?;
        Ok(key(&request.get_ref().name))
    }

    async fn disable_key_version(
        &self,
        request: Request<v1::DisableKeyVersionRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("DisableKeyVersion", &request, &request.get_ref().request_id)
            .await?;
        Ok(key(&request.get_ref().name))
    }

    async fn set_key_rotation(
        &self,
        request: Request<v1::SetKeyRotationRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("SetKeyRotation", &request, &request.get_ref().request_id)
            .await?;
        let request = request.into_inner();
        let mut key = key(&request.name);
        key.get_mut().rotation = request.rotation;
        Ok(key)
    }

    async fn set_key_audit_items(
        &self,
        request: Request<v1::SetKeyAuditItemsRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        self.arrive("SetKeyAuditItems", &request, &request.get_ref().request_id)
            .await?;
        let request = request.into_inner();
        let mut key = key(&request.name);
        key.get_mut().audit_items = request.audit_items;
        Ok(key)
    }

    async fn get_key_usage(
        &self,
        request: Request<v1::GetKeyUsageRequest>,
    ) -> Result<Response<v1::KeyUsage>, Status> {
        self.arrive("GetKeyUsage", &request, "").await?;
        Ok(Response::new(v1::KeyUsage {
            name: request.into_inner().name,
            versions: Vec::new(),
        }))
    }
}

#[tonic::async_trait]
impl v1::tenant_service_server::TenantService for Handlers {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::Tenant>, Status> {
        self.arrive("CreateTenant", &request, &request.get_ref().request_id)
            .await?;
        Ok(Response::new(v1::Tenant {
            name: request.into_inner().name,
            ..Default::default()
        }))
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        self.arrive("ListTenants", &request, "").await?;
        let (numbers, next_page_token) =
            page(request.get_ref().page_size, &request.get_ref().page_token);
        let tenants = numbers.into_iter().map(|n| v1::Tenant {
            name: format!("tenants/t{n}"),
            ..Default::default()
        });
        Ok(Response::new(v1::ListTenantsResponse {
            tenants: tenants.collect(),
            next_page_token,
        }))
    }
}

#[tonic::async_trait]
impl v1::access_service_server::AccessService for Handlers {
    async fn create_grant(
        &self,
        request: Request<v1::CreateGrantRequest>,
    ) -> Result<Response<v1::Grant>, Status> {
        self.arrive("CreateGrant", &request, &request.get_ref().request_id)
            .await?;
        let request = request.into_inner();
        Ok(Response::new(v1::Grant {
            name: "g-0123456789abcdef".into(),
            principal: request.principal,
            role: request.role,
            ..Default::default()
        }))
    }

    async fn get_grant(
        &self,
        request: Request<v1::GetGrantRequest>,
    ) -> Result<Response<v1::Grant>, Status> {
        self.arrive("GetGrant", &request, "").await?;
        Ok(Response::new(v1::Grant {
            name: request.into_inner().name,
            ..Default::default()
        }))
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        self.arrive("ListGrants", &request, "").await?;
        let request = request.into_inner();
        let (numbers, next_page_token) = page(request.page_size, &request.page_token);
        let grants = numbers.into_iter().map(|n| v1::Grant {
            principal: format!("{}/identities/i{n}", request.parent),
            ..Default::default()
        });
        Ok(Response::new(v1::ListGrantsResponse {
            grants: grants.collect(),
            next_page_token,
        }))
    }

    async fn revoke_grant(
        &self,
        request: Request<v1::RevokeGrantRequest>,
    ) -> Result<Response<v1::RevokeGrantResponse>, Status> {
        self.arrive("RevokeGrant", &request, &request.get_ref().request_id)
            .await?;
        Ok(Response::new(v1::RevokeGrantResponse {}))
    }

    async fn add_group_member(
        &self,
        request: Request<v1::AddGroupMemberRequest>,
    ) -> Result<Response<v1::GroupMember>, Status> {
        self.arrive("AddGroupMember", &request, &request.get_ref().request_id)
            .await?;
        let request = request.into_inner();
        Ok(Response::new(v1::GroupMember {
            group: request.group,
            member: request.member,
            ..Default::default()
        }))
    }

    async fn remove_group_member(
        &self,
        request: Request<v1::RemoveGroupMemberRequest>,
    ) -> Result<Response<v1::RemoveGroupMemberResponse>, Status> {
        self.arrive("RemoveGroupMember", &request, &request.get_ref().request_id)
            .await?;
        Ok(Response::new(v1::RemoveGroupMemberResponse {}))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        self.arrive("ListGroups", &request, "").await?;
        let request = request.into_inner();
        let (numbers, next_page_token) = page(request.page_size, &request.page_token);
        let groups = numbers.into_iter().map(|n| v1::Group {
            name: format!("{}/groups/g{n}", request.parent),
            members: 1,
        });
        Ok(Response::new(v1::ListGroupsResponse {
            groups: groups.collect(),
            next_page_token,
        }))
    }

    async fn list_group_members(
        &self,
        request: Request<v1::ListGroupMembersRequest>,
    ) -> Result<Response<v1::ListGroupMembersResponse>, Status> {
        self.arrive("ListGroupMembers", &request, "").await?;
        let request = request.into_inner();
        let (numbers, next_page_token) = page(request.page_size, &request.page_token);
        let members = numbers.into_iter().map(|n| v1::GroupMember {
            group: request.group.clone(),
            member: format!("i{n}"),
            ..Default::default()
        });
        Ok(Response::new(v1::ListGroupMembersResponse {
            members: members.collect(),
            next_page_token,
        }))
    }

    async fn explain_access(
        &self,
        request: Request<v1::ExplainAccessRequest>,
    ) -> Result<Response<v1::ExplainAccessResponse>, Status> {
        self.arrive("ExplainAccess", &request, "").await?;
        Ok(Response::new(v1::ExplainAccessResponse {
            message: request.into_inner().principal,
            ..Default::default()
        }))
    }

    async fn who_can(
        &self,
        request: Request<v1::WhoCanRequest>,
    ) -> Result<Response<v1::WhoCanResponse>, Status> {
        self.arrive("WhoCan", &request, "").await?;
        let request = request.into_inner();
        let (numbers, next_page_token) = page(request.page_size, &request.page_token);
        let holders = numbers.into_iter().map(|n| v1::Holder {
            identities: vec![format!("{}{n}", request.action)],
            ..Default::default()
        });
        Ok(Response::new(v1::WhoCanResponse {
            holders: holders.collect(),
            next_page_token,
        }))
    }

    async fn issue_certificate(
        &self,
        request: Request<v1::IssueCertificateRequest>,
    ) -> Result<Response<v1::IssueCertificateResponse>, Status> {
        self.arrive("IssueCertificate", &request, "").await?;
        Ok(Response::new(v1::IssueCertificateResponse {
            certificate_pem: format!(
                "{} {}",
                request.get_ref().identity,
                request.get_ref().ttl_seconds
            ),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl v1::audit_service_server::AuditService for Handlers {
    type TailRecordsStream = ReceiverStream<Result<v1::TailRecordsResponse, Status>>;
    type MakeReportStream = ReceiverStream<Result<v1::MakeReportResponse, Status>>;

    /// A report in two parts, which has a signature if it begins before the year 2000.
    async fn make_report(
        &self,
        request: Request<v1::MakeReportRequest>,
    ) -> Result<Response<Self::MakeReportStream>, Status> {
        self.arrive("MakeReport", &request, "").await?;
        let (parts, taken) = mpsc::channel(3);
        for chunk in ["a re", "port"] {
            let part = v1::MakeReportResponse {
                chunk: chunk.into(),
                ..Default::default()
            };
            let _ = parts.send(Ok(part)).await;
        }
        if request.get_ref().start_time_us < 946_684_800_000_000 {
            let part = v1::MakeReportResponse {
                signature: "a signature".to_owned(),
                ..Default::default()
            };
            let _ = parts.send(Ok(part)).await;
        }
        Ok(Response::new(ReceiverStream::new(taken)))
    }

    /// Two steps, of which the second has no records.
    async fn tail_records(
        &self,
        request: Request<v1::TailRecordsRequest>,
    ) -> Result<Response<Self::TailRecordsStream>, Status> {
        self.arrive("TailRecords", &request, "").await?;
        let start = request.get_ref().start_index();
        let (steps, taken) = mpsc::channel(2);
        for entries in [vec![v1::AuditEntry::default()], Vec::new()] {
            let step = v1::TailRecordsResponse {
                entries,
                next_index: start + 1,
            };
            let _ = steps.send(Ok(step)).await;
        }
        Ok(Response::new(ReceiverStream::new(taken)))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        self.arrive("GetCheckpoint", &request, "").await?;
        Ok(Response::new(v1::GetCheckpointResponse {
            checkpoint: "a note".to_owned(),
            ..Default::default()
        }))
    }

    async fn prove_record(
        &self,
        request: Request<v1::ProveRecordRequest>,
    ) -> Result<Response<v1::ProveRecordResponse>, Status> {
        self.arrive("ProveRecord", &request, "").await?;
        let asked = request.get_ref();
        Ok(Response::new(v1::ProveRecordResponse {
            proof: format!("{} {}", asked.index, asked.leaf_hash.len()),
            ..Default::default()
        }))
    }

    async fn prove_consistency(
        &self,
        request: Request<v1::ProveConsistencyRequest>,
    ) -> Result<Response<v1::ProveConsistencyResponse>, Status> {
        self.arrive("ProveConsistency", &request, "").await?;
        Ok(Response::new(v1::ProveConsistencyResponse {
            proof: request.get_ref().checkpoint.clone(),
            ..Default::default()
        }))
    }

    async fn list_records(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Result<Response<v1::ListRecordsResponse>, Status> {
        self.arrive("ListRecords", &request, "").await?;
        let (numbers, next_page_token) =
            page(request.get_ref().page_size, &request.get_ref().page_token);
        let entries = numbers.into_iter().map(|n| v1::AuditEntry {
            index: u64::from(n),
            record: None,
        });
        Ok(Response::new(v1::ListRecordsResponse {
            entries: entries.collect(),
            next_page_token,
        }))
    }
}

#[tonic::async_trait]
impl v1::system_service_server::SystemService for Handlers {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.arrive("GetStatus", &request, "").await?;
        Ok(Response::new(v1::GetStatusResponse {
            version: "0.0.0-fake".to_owned(),
            ..Default::default()
        }))
    }
}
