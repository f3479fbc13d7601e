//! What an OpenTelemetry collector gets: read with the messages of the OpenTelemetry project itself.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use fieldkeep_harness::{Home, Identity, Server};
use fieldkeep_proto::v1::{
    BatchEncryptRequest, ContextPair, EncryptItem, EncryptRequest,
    field_service_client::FieldServiceClient,
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        },
    },
    common::v1::any_value::Value,
    metrics::v1::{Metric, metric::Data},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;

use crate::transport::channel;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const PLAINTEXT: &str = "ada@secret.example";
const CONTEXT: &str = "row-of-secret";

/// One request of the service.
struct Sent {
    path: String,
    token: Option<String>,
    body: bytes::Bytes,
}

/// A collector that takes everything, until the receiver of the channel is dropped.
fn collector(answer: ExportTraceServiceResponse) -> (SocketAddr, mpsc::Receiver<Sent>) {
    collector_that_refuses(&[], answer)
}

/// A collector that answers the first requests with these statuses, and takes what comes after.
fn collector_that_refuses(
    statuses: &[u16],
    answer: ExportTraceServiceResponse,
) -> (SocketAddr, mpsc::Receiver<Sent>) {
    let statuses = Arc::new(Mutex::new(statuses.to_vec()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (sender, sent) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut open = true;
            while open {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, answer) = (sender.clone(), answer.clone());
                let statuses = Arc::clone(&statuses);
                let (told, gone) = mpsc::channel();
                let served = service_fn(move |request: Request<Incoming>| {
                    let (sender, told, answer) =
                        (sender.clone(), told.clone(), answer.encode_to_vec());
                    let refusal = statuses.lock().unwrap().pop();
                    async move {
                        if let Some(status) = refusal {
                            let refused = Response::builder().status(status);
                            return Ok::<_, Infallible>(refused.body(Full::default()).unwrap());
                        }
                        let path = request.uri().path().to_owned();
                        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                        let token = request.headers().get("x-token");
                        let token = token.map(|token| token.to_str().unwrap().to_owned());
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let _ = told.send(sender.send(Sent { path, token, body }).is_ok());
                        Ok(Response::new(Full::new(bytes::Bytes::from(answer))))
                    }
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), served)
                    .await;
                open = gone.try_iter().all(|listening| listening);
            }
        });
    });
    (address, sent)
}

fn serve(home: &Home, address: SocketAddr, more: &str) -> Server {
    let mut config = fs::read_to_string(home.config()).unwrap();
    config.push_str(&format!(
        "\n[telemetry]\notlp_endpoint = \"http://{address}\"\nmetrics_interval_ms = 100\n{more}\n"
    ));
    fs::write(home.config(), config).unwrap();
    home.serve()
}

fn app(home: &Home, server: &Server) -> Identity {
    let admin = home.admin();
    server.run(&admin, &["key", "create", "pii-of-somebody"]);
    server.issue(
        &admin,
        "default",
        "app",
        "data",
        &home.path().join("identities"),
    )
}

async fn client(
    home: &Home,
    server: &Server,
    app: &Identity,
) -> FieldServiceClient<tonic::transport::Channel> {
    FieldServiceClient::new(channel(server.data, home, Some(app)).await.unwrap())
}

fn encrypt() -> EncryptRequest {
    EncryptRequest {
        key: "pii-of-somebody".into(),
        field: "customer.secret".into(),
        context: vec![ContextPair {
            name: "id".into(),
            value: CONTEXT.into(),
        }],
        plaintext: PLAINTEXT.into(),
    }
}

fn traced<T>(message: T, flags: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let parent = format!("00-{TRACE}-{PARENT}-{flags}");
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    request
}

fn spans(sent: &[Sent]) -> Vec<Span> {
    sent.iter()
        .filter(|sent| sent.path == "/v1/traces")
        .flat_map(|sent| {
            ExportTraceServiceRequest::decode(sent.body.clone())
                .unwrap()
                .resource_spans
        })
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect()
}

fn metrics(sent: &Sent) -> Vec<Metric> {
    let message = ExportMetricsServiceRequest::decode(sent.body.clone()).unwrap();
    let resource = message.resource_metrics[0].resource.clone().unwrap();
    let named = resource.attributes.iter().any(|attribute| {
        attribute.key == "service.name"
            && attribute.value.clone().unwrap().value
                == Some(Value::StringValue("vault-of-acme".into()))
    });
    assert!(named, "{resource:?}");
    message
        .resource_metrics
        .into_iter()
        .flat_map(|resource| resource.scope_metrics)
        .flat_map(|scope| scope.metrics)
        .collect()
}

fn number(span: &Span, name: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|a| a.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        other => panic!("{name}: {other:?}"),
    }
}

fn parts<'a>(spans: &'a [Span], of: &Span) -> Vec<&'a str> {
    let below = |span: &&Span| span.parent_span_id == of.span_id;
    spans
        .iter()
        .filter(below)
        .map(|span| span.name.as_str())
        .collect()
}

#[tokio::test]
async fn a_collector_gets_traces_and_metrics_without_secrets() {
    let (address, received) = collector(ExportTraceServiceResponse::default());
    let home = Home::make();
    let more = "service_name = \"vault-of-acme\"\nheaders_env = { x-token = \"PATH\" }";
    let server = serve(&home, address, more);
    let app = app(&home, &server);
    let mut client = client(&home, &server, &app).await;
    client.encrypt(traced(encrypt(), "01")).await.unwrap();
    let batch = BatchEncryptRequest {
        key: "pii-of-somebody".into(),
        field: "customer.secret".into(),
        items: vec![
            EncryptItem {
                plaintext: PLAINTEXT.into(),
                ..Default::default()
            },
            EncryptItem {
                key: "none-of-these".into(),
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    client.batch_encrypt(traced(batch, "01")).await.unwrap();
    client.encrypt(traced(encrypt(), "00")).await.unwrap();
    let unknown = EncryptRequest {
        key: "none-of-these".into(),
        ..encrypt()
    };
    client.encrypt(traced(unknown, "01")).await.unwrap_err();
    drop(client);
    let text = scrape(server.metrics);
    server.stop();

    let sent: Vec<Sent> = received.try_iter().collect();
    let path = std::env::var("PATH").ok();
    assert!(sent.iter().all(|sent| sent.token == path));
    for secret in [
        PLAINTEXT,
        CONTEXT,
        "customer.secret",
        "pii-of-somebody",
        "none-of-these",
    ] {
        for sent in &sent {
            let found = sent
                .body
                .windows(secret.len())
                .any(|w| w == secret.as_bytes());
            assert!(!found, "`{secret}` went to {}", sent.path);
        }
    }

    let spans = spans(&sent);
    let under_caller: Vec<&Span> = spans
        .iter()
        .filter(|span| data_encoding::HEXLOWER.encode(&span.parent_span_id) == PARENT)
        .collect();
    assert_eq!(under_caller.len(), 3, "the one with flags 00 is not kept");
    for span in &under_caller {
        assert_eq!(data_encoding::HEXLOWER.encode(&span.trace_id), TRACE);
        assert_eq!(span.kind, i32::from(SpanKind::Server));
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    let [one, batch, refused] = under_caller[..] else {
        panic!("{under_caller:?}");
    };
    assert_eq!(one.name, "fieldkeep.v1.FieldService/Encrypt");
    assert_eq!(number(one, "rpc.grpc.status_code"), Some(0));
    assert_eq!(parts(&spans, one), ["run", "audit"]);
    assert_eq!(number(batch, "fieldkeep.items_ok"), Some(1));
    assert_eq!(number(batch, "fieldkeep.items_failed"), Some(1));
    assert_eq!(number(refused, "rpc.grpc.status_code"), Some(5));
    assert_eq!(refused.status, None, "a mistake of the caller's");
    let created = spans
        .iter()
        .find(|span| span.name == "fieldkeep.v1.KeyService/CreateKey")
        .unwrap();
    assert!(created.parent_span_id.is_empty());
    assert_eq!(parts(&spans, created), ["change", "audit"]);

    let last = sent
        .iter()
        .rfind(|sent| sent.path == "/v1/metrics")
        .unwrap();
    let metrics = metrics(last);
    let sent_names: BTreeSet<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    let scraped: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert_eq!(sent_names, scraped);
    let calls = metrics
        .iter()
        .find(|m| m.name == "fieldkeep_calls_total")
        .unwrap();
    let Some(Data::Sum(sum)) = &calls.data else {
        panic!("{calls:?}")
    };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
}

/// The text of the metrics listener.
pub(crate) fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn failures(server: &Server) -> u64 {
    let text = scrape(server.metrics);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("fieldkeep_otlp_failures_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_collector_that_is_gone_disturbs_no_call() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let home = Home::make();
    let server = serve(&home, address, "");
    let app = app(&home, &server);
    let mut client = client(&home, &server, &app).await;
    while failures(&server) < 2 {
        client.encrypt(traced(encrypt(), "01")).await.unwrap();
    }
    drop(client);
    let log = server.stop();
    let told = log.matches("telemetry was not sent").count();
    assert_eq!(told, 1, "once a minute:\n{log}");
}

#[tokio::test]
async fn what_a_collector_cannot_take_for_a_moment_is_sent_again() {
    let (address, received) =
        collector_that_refuses(&[503, 429], ExportTraceServiceResponse::default());
    let home = Home::make();
    // Traces alone, so that it is they that are refused.
    let server = serve(&home, address, "metrics = false");
    let app = app(&home, &server);
    let mut client = client(&home, &server, &app).await;
    client.encrypt(traced(encrypt(), "01")).await.unwrap();
    drop(client);
    let sent = received.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(failures(&server), 0);
    server.stop();
    let sent: Vec<Sent> = std::iter::once(sent).chain(received.try_iter()).collect();
    let names: BTreeSet<String> = spans(&sent).into_iter().map(|span| span.name).collect();
    for name in [
        "fieldkeep.v1.KeyService/CreateKey",
        "fieldkeep.v1.FieldService/Encrypt",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

#[tokio::test]
async fn what_a_collector_refuses_for_good_is_not_sent_again() {
    let (address, received) = collector_that_refuses(&[400], ExportTraceServiceResponse::default());
    let home = Home::make();
    let server = serve(&home, address, "metrics = false");
    app(&home, &server);
    while failures(&server) == 0 {
        thread::sleep(Duration::from_millis(10));
    }
    server.stop();
    let sent: Vec<Sent> = received.try_iter().collect();
    let lost = spans(&sent);
    assert!(
        !lost.iter().any(|span| span.name.ends_with("/CreateKey")),
        "{lost:?}"
    );
}

#[tokio::test]
async fn a_collector_that_hangs_or_takes_a_part_stops_nothing() {
    // It accepts by its backlog alone and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::make();
    let server = serve(&home, silent.local_addr().unwrap(), "");
    let app = app(&home, &server);
    let mut client = client(&home, &server, &app).await;
    client.encrypt(traced(encrypt(), "01")).await.unwrap();
    drop(client);
    server.stop();

    let partly = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 7,
            error_message: String::new(),
        }),
    };
    let (address, _received) = collector(partly);
    let home = Home::make();
    let server = serve(&home, address, "");
    while failures(&server) == 0 {}
    let log = server.stop();
    assert!(log.contains("did not take 7 spans"), "{log}");
}
