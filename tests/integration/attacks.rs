//! What attackers without a right can do to a service, with the real binary: nothing that others notice.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use fieldkeep_harness::Home;
use fieldkeep_proto::v1::{EncryptRequest, field_service_client::FieldServiceClient};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tonic::Code;

use crate::{fixture::Fixture, transport};

/// The beginning of a ClientHello: the head of its record, and half of its random bytes (RFC 8446, section 4.1.2).
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half of what is random";

fn configure(home: &Home, lines: &str) {
    let text = std::fs::read_to_string(home.config()).unwrap();
    std::fs::write(home.config(), format!("{text}\n{lines}\n")).unwrap();
}

/// A connection from another address of this host.
async fn connect_from(source: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{source}:0").parse().unwrap())?;
    socket.connect(to).await
}

/// How many files this process may have open, after asking for as many as it can get.
fn most_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
    let most = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(most).unwrap()
}

#[tokio::test]
async fn ten_thousand_half_open_handshakes_hold_nobody_up() {
    let f = Fixture::start();
    let count = 10_000.min(most_files().saturating_sub(1_000));
    let mut flood = Vec::with_capacity(count);
    for number in 0..count {
        let Ok(mut stream) = connect_from("127.0.0.2", f.server.data).await else {
            continue;
        };
        let _ = stream.write_all(HALF_A_HELLO).await;
        flood.push(stream);
        if number % 1_000 == 0 {
            let client = f.server.data_client(&f.app_identity);
            let field = client.field("pii", "f");
            timeout(Duration::from_secs(20), field.encrypt(b"x"))
                .await
                .expect("others go on")
                .unwrap();
        }
    }
    assert!(flood.len() > count / 2, "{} of {count}", flood.len());
    f.server
        .data_client(&f.app_identity)
        .field("pii", "f")
        .encrypt(b"x")
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_shakes_hands_slowly_or_not_at_all_loses_the_connection() {
    let home = Home::make();
    configure(&home, "[limits]\nhandshake_timeout_ms = 500");
    let server = home.serve();
    let began = Instant::now();
    let mut silent = TcpStream::connect(server.data).await.unwrap();
    let mut half = TcpStream::connect(server.data).await.unwrap();
    half.write_all(HALF_A_HELLO).await.unwrap();
    let mut slow = TcpStream::connect(server.data).await.unwrap();
    let dribble = async {
        for byte in HALF_A_HELLO.iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ends = async {
        for stream in [&mut silent, &mut half] {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    };
    let both = async { tokio::join!(dribble, ends) };
    timeout(Duration::from_secs(30), both)
        .await
        .expect("closed");
    assert!(began.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn one_source_has_its_share_of_the_connections() {
    let home = Home::make();
    configure(&home, "[limits]\nconnections_per_source = 8");
    let server = home.serve();
    server.run(&home.admin(), &["key", "create", "pii"]);
    let folder = home.path().join("identities");
    let app = server.issue(&home.admin(), "default", "app", "data", &folder);
    let mut ends = JoinSet::new();
    for _ in 0..12 {
        let mut stream = connect_from("127.0.0.2", server.data).await.unwrap();
        ends.spawn(async move {
            let mut byte = [0];
            // One over the bound is closed at once; the others are waited for.
            let end = timeout(Duration::from_secs(4), stream.read(&mut byte)).await;
            end.is_err().then_some(stream)
        });
    }
    let held: Vec<TcpStream> = ends.join_all().await.into_iter().flatten().collect();
    assert_eq!(held.len(), 8);
    let client = server.data_client(&app);
    client.field("pii", "f").encrypt(b"x").await.unwrap();
    drop(held);
}

#[tokio::test]
async fn nobody_writes_a_line_into_a_log_or_a_terminal() {
    let home = Home::make();
    let text = std::fs::read_to_string(home.config()).unwrap();
    let (before, _log) = text.split_once("[log]").unwrap();
    let log = "[log]\nformat = \"json\"\nlevel = \"trace\"\n";
    std::fs::write(home.config(), format!("{before}{log}")).unwrap();
    let server = home.serve();
    let admin = home.admin();
    server.run(&admin, &["key", "create", "pii"]);
    let folder = home.path().join("identities");
    let app = server.issue(&admin, "default", "app", "data", &folder);
    let channel = transport::channel(server.data, &home, Some(&app)).await;
    let mut client = FieldServiceClient::new(channel.unwrap());
    let planted = "\n{\"level\":\"ERROR\",\"planted\":true}\n\u{1b}[2J\u{9b}31m\u{202e}";
    for (key, field) in [(planted, "f"), ("pii", planted), ("no-such-key", "f")] {
        let mut request = tonic::Request::new(EncryptRequest {
            key: key.into(),
            field: field.into(),
            ..Default::default()
        });
        let header = "00-{\"planted\":true}".parse().unwrap();
        request.metadata_mut().insert("traceparent", header);
        let status = client.encrypt(request).await.unwrap_err();
        assert_ne!(status.code(), Code::Internal, "{status:?}");
        let message = status.message();
        assert!(!message.chars().any(|c| c.is_control()), "{message:?}");
    }
    let listed = server.run(&admin, &["audit", "list", "--format", "table"]);
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!listed.chars().any(control), "{listed:?}");
    assert!(
        !listed.lines().any(|line| line.starts_with('{')),
        "{listed}"
    );
    let log = server.stop();
    for line in log.lines().filter(|line| !line.is_empty()) {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"));
        assert!(entry.get("planted").is_none(), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}
