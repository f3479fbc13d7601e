//! The baselines: a plain multi-threaded tonic server with the same mutual TLS. `Encrypt` echoes; `BatchEncrypt` runs suite 01 and
//! nothing else: no authorization, no key look-up, no audit.

use std::{
    fs, io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use fieldkeep_crypto::{
    ciphertext::{Handle, Suite},
    context::EncodedContext,
    keys::{Dek, FieldKey, Nonces},
    names::Field,
};
use fieldkeep_proto::v1::{
    self,
    field_service_server::{FieldService, FieldServiceServer},
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::Connected},
};

/// Serves with the certificates of a directory made by `fieldkeep init`, until killed. Prints the ready line of the service.
pub(crate) fn serve(home: &Path) {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&home.join("tls"))));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                stream.set_nodelay(true).expect("a socket option");
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = sender.send(Ok::<_, io::Error>(Connection(stream))).await;
                    }
                });
            }
        });
        println!("ready data={address} admin={address} metrics={address}");
        Server::builder()
            .add_service(
                FieldServiceServer::new(Bare::make())
                    .max_decoding_message_size(16 << 20)
                    .max_encoding_message_size(16 << 20),
            )
            .serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(receiver))
            .await
            .expect("the server runs until it is killed");
    });
}

fn tls(folder: &Path) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(folder.join("ca.pem")).expect("the CA"))
        .expect("a CA certificate");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .expect("a verifier");
    let chain = CertificateDer::pem_slice_iter(
        &fs::read(folder.join("server.pem")).expect("the certificate"),
    )
    .collect::<Result<Vec<_>, _>>()
    .expect("PEM");
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("the key");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// tonic's own impl of [`Connected`] for this type would bring TLS 1.2 into the build.
struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

struct Bare {
    key: FieldKey,
}

impl Bare {
    fn make() -> Self {
        let dek = Dek::make().expect("random bytes");
        let handle = Handle::make().expect("random bytes");
        let field = Field::parse("customer.email").expect("a name");
        Self {
            key: dek.derive_field_key(Suite::KcXaes256Gcm, "default", handle, 1, field),
        }
    }
}

#[tonic::async_trait]
impl FieldService for Bare {
    async fn encrypt(
        &self,
        request: Request<v1::EncryptRequest>,
    ) -> Result<Response<v1::EncryptResponse>, Status> {
        Ok(Response::new(v1::EncryptResponse {
            ciphertext: request.into_inner().plaintext,
            version: 1,
        }))
    }

    async fn batch_encrypt(
        &self,
        request: Request<v1::BatchEncryptRequest>,
    ) -> Result<Response<v1::BatchEncryptResponse>, Status> {
        let request = request.into_inner();
        let mut nonces =
            Nonces::make(request.items.len()).map_err(|e| Status::internal(e.to_string()))?;
        let mut results = Vec::with_capacity(request.items.len());
        for item in request.items {
            let pairs = item
                .context
                .iter()
                .map(|pair| (pair.name.as_str(), pair.value.as_str()));
            let context = EncodedContext::encode(pairs)
                .map_err(|e| Status::invalid_argument(e.to_string()))?;
            let nonce = nonces
                .next_nonce()
                .ok_or_else(|| Status::internal("nonces"))?;
            let mut out = Vec::with_capacity(item.plaintext.len() + 86);
            self.key
                .seal(nonce, &context, &item.plaintext, &mut out)
                .map_err(|e| Status::internal(e.to_string()))?;
            results.push(v1::EncryptResult {
                ciphertext: Bytes::from(out),
                version: 1,
                error: None,
            });
        }
        Ok(Response::new(v1::BatchEncryptResponse { results }))
    }

    async fn decrypt(
        &self,
        _: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    async fn re_encrypt(
        &self,
        _: Request<v1::ReEncryptRequest>,
    ) -> Result<Response<v1::ReEncryptResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    async fn batch_decrypt(
        &self,
        _: Request<v1::BatchDecryptRequest>,
    ) -> Result<Response<v1::BatchDecryptResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    async fn batch_re_encrypt(
        &self,
        _: Request<v1::BatchReEncryptRequest>,
    ) -> Result<Response<v1::BatchReEncryptResponse>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    type EncryptStreamStream = tokio_stream::Empty<Result<v1::EncryptStreamResponse, Status>>;

    async fn encrypt_stream(
        &self,
        _: Request<tonic::Streaming<v1::BatchEncryptRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    type DecryptStreamStream = tokio_stream::Empty<Result<v1::DecryptStreamResponse, Status>>;

    async fn decrypt_stream(
        &self,
        _: Request<tonic::Streaming<v1::BatchDecryptRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        Err(Status::unimplemented("a baseline"))
    }

    type ReEncryptStreamStream = tokio_stream::Empty<Result<v1::ReEncryptStreamResponse, Status>>;

    async fn re_encrypt_stream(
        &self,
        _: Request<tonic::Streaming<v1::BatchReEncryptRequest>>,
    ) -> Result<Response<Self::ReEncryptStreamStream>, Status> {
        Err(Status::unimplemented("a baseline"))
    }
}
