//! The baselines: a plain multi-threaded tonic server with the same mutual TLS. Unary calls echo; batches and streams run suite 01 and
//! nothing else: no authorization, no key look-up, no audit.

mod cipher;
mod tls;

use std::{io, path::Path, sync::Arc};

use fieldkeep_proto::v1::{
    self,
    field_service_server::{FieldService, FieldServiceServer},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use self::{cipher::Cipher, tls::Connection};

/// Serves with the certificates of a directory made by `fieldkeep init`, until killed. Prints the ready line of the service.
pub(crate) fn serve(home: &Path) {
    let acceptor = TlsAcceptor::from(Arc::new(tls::config(&home.join("tls"))));
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
        let bare = Bare {
            cipher: Arc::new(Cipher::make()),
        };
        // Ended by SIGTERM, so that whoever counts its allocations gets the count.
        let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .expect("a signal handler");
        let serving = Server::builder()
            .add_service(
                FieldServiceServer::new(bare)
                    .max_decoding_message_size(16 << 20)
                    .max_encoding_message_size(16 << 20),
            )
            .serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(receiver));
        tokio::select! {
            served = serving => served.expect("the server runs until it is ended"),
            _ = ended.recv() => {}
        }
    });
}

struct Bare {
    cipher: Arc<Cipher>,
}

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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

    async fn decrypt(
        &self,
        request: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptResponse>, Status> {
        let mut ciphertext = request.into_inner().ciphertext;
        ciphertext.truncate(ciphertext.len().saturating_sub(86));
        Ok(Response::new(v1::DecryptResponse {
            plaintext: ciphertext,
            masked: false,
        }))
    }

    async fn re_encrypt(
        &self,
        request: Request<v1::ReEncryptRequest>,
    ) -> Result<Response<v1::ReEncryptResponse>, Status> {
        Ok(Response::new(v1::ReEncryptResponse {
            ciphertext: request.into_inner().ciphertext,
            version: 1,
            changed: true,
        }))
    }

    async fn batch_encrypt(
        &self,
        request: Request<v1::BatchEncryptRequest>,
    ) -> Result<Response<v1::BatchEncryptResponse>, Status> {
        let results = self.cipher.seal(request.into_inner())?;
        Ok(Response::new(v1::BatchEncryptResponse { results }))
    }

    async fn batch_decrypt(
        &self,
        request: Request<v1::BatchDecryptRequest>,
    ) -> Result<Response<v1::BatchDecryptResponse>, Status> {
        let results = self.cipher.open(request.into_inner())?;
        Ok(Response::new(v1::BatchDecryptResponse { results }))
    }

    async fn batch_re_encrypt(
        &self,
        request: Request<v1::BatchReEncryptRequest>,
    ) -> Result<Response<v1::BatchReEncryptResponse>, Status> {
        let results = self.cipher.reseal(request.into_inner())?;
        Ok(Response::new(v1::BatchReEncryptResponse { results }))
    }

    type EncryptStreamStream = Answers<v1::EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        request: Request<Streaming<v1::BatchEncryptRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        let cipher = Arc::clone(&self.cipher);
        let answers = request.into_inner().map(move |message| {
            Ok(v1::EncryptStreamResponse {
                request_id: Default::default(),
                receipt: Default::default(),
                error: None,
                results: cipher.seal(message?)?,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type DecryptStreamStream = Answers<v1::DecryptStreamResponse>;

    async fn decrypt_stream(
        &self,
        request: Request<Streaming<v1::BatchDecryptRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        let cipher = Arc::clone(&self.cipher);
        let answers = request.into_inner().map(move |message| {
            Ok(v1::DecryptStreamResponse {
                request_id: Default::default(),
                receipt: Default::default(),
                error: None,
                results: cipher.open(message?)?,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type ReEncryptStreamStream = Answers<v1::ReEncryptStreamResponse>;

    async fn re_encrypt_stream(
        &self,
        request: Request<Streaming<v1::BatchReEncryptRequest>>,
    ) -> Result<Response<Self::ReEncryptStreamStream>, Status> {
        let cipher = Arc::clone(&self.cipher);
        let answers = request.into_inner().map(move |message| {
            Ok(v1::ReEncryptStreamResponse {
                request_id: Default::default(),
                receipt: Default::default(),
                error: None,
                results: cipher.reseal(message?)?,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
