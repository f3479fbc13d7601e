//! OpenBao's transit engine beside ours, in interleaved rounds, from one load generator.
//!
//! OpenBao runs as a server with its integrated storage on disk, one unseal share, and its file audit device; without TLS, which
//! spares it work that Fieldkeep does, and with its bounds on JSON raised, since they refuse a batch of 1,000 with contexts. Each
//! call in flight has a connection of its own there, since its API without TLS is HTTP/1.1.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use data_encoding::BASE64;
use fieldkeep_client::Client;
use fieldkeep_harness::Home;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, runtime::Builder, sync::Mutex};

use crate::{
    load::{self, Measured},
    process,
    report::spread,
    rows::{self, BATCH, KEY, PLAINTEXT},
    servers,
    system::CONNECTIONS,
};

const IN_FLIGHT: [usize; 3] = [16, 64, 256];
/// How long OpenBao may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One row of the table.
struct Row {
    batch: bool,
    in_flight: usize,
    ours: Vec<Measured>,
    theirs: Vec<Measured>,
}

/// Measures every shape `rounds` times and returns the table. `server` is OpenBao's binary.
pub(crate) fn run(server: &Path, rounds: usize, length: Duration) -> String {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let home = Home::make();
    let ours = home.serve();
    let (admin, identities) = (home.admin(), home.path().join("identities"));
    let app = ours.issue(&admin, "default", "app", "data", &identities);
    ours.run(&admin, &["key", "create", "pii"]);
    let bao = OpenBao::start(server, &home.path().join("openbao"), &runtime);
    let idle = (
        process::memory_kib(ours.pid()).0,
        process::memory_kib(bao.pid()).0,
    );

    let _inside = runtime.enter();
    let clients = servers::connect(&home, ours.data, &app, CONNECTIONS);
    let mut rows: Vec<Row> = [false, true]
        .into_iter()
        .flat_map(|batch| IN_FLIGHT.map(|in_flight| (batch, in_flight)))
        .map(|(batch, in_flight)| Row {
            batch,
            in_flight,
            ours: Vec::new(),
            theirs: Vec::new(),
        })
        .collect();
    for round in 0..rounds {
        for row in &mut rows {
            let (us, them) = runtime.block_on(async {
                let us = measure_ours(row, &clients, ours.pid(), length).await;
                (us, measure_theirs(row, &bao, length).await)
            });
            eprintln!(
                "round {}, {} in flight, batch: {}: {:.0} and {:.0} calls/s",
                round + 1,
                row.in_flight,
                row.batch,
                us.rate,
                them.rate
            );
            row.ours.push(us);
            row.theirs.push(them);
        }
    }
    let peak = (
        process::memory_kib(ours.pid()).1,
        process::memory_kib(bao.pid()).1,
    );
    let audit_bytes = fs::metadata(bao.audit.as_path()).map_or(0, |m| m.len());
    ours.stop();
    let mut text = table(&rows, rounds, length);
    let _ = writeln!(
        text,
        "\nResident memory, idle: Fieldkeep {} MiB, OpenBao {} MiB; peak of the run: {} MiB and {} MiB. OpenBao's audit file grew to {} MiB.",
        idle.0 >> 10,
        idle.1 >> 10,
        peak.0 >> 10,
        peak.1 >> 10,
        audit_bytes >> 20
    );
    text
}

async fn measure_ours(row: &Row, clients: &[Client], pid: u32, length: Duration) -> Measured {
    let each = row.in_flight / CONNECTIONS;
    // Calls share the connections, as HTTP/2 has it.
    if row.batch {
        load::run(clients, each, length, pid, |client, number| async move {
            let batch = rows::encrypt_batch(KEY, number, BATCH);
            let results = client.encrypt_batch(batch).await.expect("encrypted");
            assert!(results.len() == BATCH && results.iter().all(Result::is_ok));
        })
        .await
    } else {
        load::run(clients, each, length, pid, |client, number| async move {
            rows::encrypt(&client, number).await;
        })
        .await
    }
}

async fn measure_theirs(row: &Row, bao: &OpenBao, length: Duration) -> Measured {
    let mut connections = Vec::with_capacity(row.in_flight);
    for _ in 0..row.in_flight {
        connections.push(bao.connect().await);
    }
    if row.batch {
        load::run(&connections, 1, length, bao.pid(), encrypt_batch).await
    } else {
        load::run(&connections, 1, length, bao.pid(), encrypt).await
    }
}

async fn encrypt(connection: Connection, number: u64) {
    let answer = connection
        .post("/v1/transit/encrypt/pii", &item(number))
        .await;
    let ciphertext = answer["data"]["ciphertext"].as_str();
    assert!(
        ciphertext.is_some_and(|text| text.starts_with("vault:v1:")),
        "{answer}"
    );
}

async fn encrypt_batch(connection: Connection, number: u64) {
    let items: Vec<Value> = (0..BATCH as u64).map(|i| item(number + i)).collect();
    let body = json!({ "batch_input": items });
    let answer = connection.post("/v1/transit/encrypt/pii", &body).await;
    let results = answer["data"]["batch_results"].as_array();
    assert!(
        results.is_some_and(|all| all.len() == BATCH),
        "not all were encrypted: {:.400}",
        answer.to_string()
    );
}

/// One field and its context, as associated data.
fn item(number: u64) -> Value {
    json!({
        "plaintext": BASE64.encode(PLAINTEXT),
        "associated_data": BASE64.encode(format!("id={number}").as_bytes()),
    })
}

/// The OpenBao process. Dropping it kills it.
struct OpenBao {
    child: Child,
    address: SocketAddr,
    audit: std::path::PathBuf,
    token: Arc<str>,
}

impl OpenBao {
    fn start(server: &Path, directory: &Path, runtime: &tokio::runtime::Runtime) -> Self {
        let data = directory.join("data");
        fs::create_dir_all(&data).expect("a directory");
        let audit = directory.join("audit.log");
        let (address, cluster) = (free_address(), free_address());
        let configuration = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"one\"\n}}\n\
             listener \"tcp\" {{\n  address = \"{address}\"\n  cluster_address = \"{cluster}\"\n  tls_disable = true\n  max_request_json_strings = 100000\n  max_request_json_memory = 104857600\n}}\n\
             api_addr = \"http://{address}\"\ncluster_addr = \"http://{cluster}\"\n\
             audit \"file\" \"to-file\" {{\n  options = {{ file_path = \"{}\" }}\n}}\n",
            data.display(),
            audit.display()
        );
        let file = directory.join("openbao.hcl");
        fs::write(&file, configuration).expect("the configuration can be written");
        let log = File::create(directory.join("log")).expect("a log file");
        let child = Command::new(server)
            .arg("server")
            .arg(format!("-config={}", file.display()))
            .stdout(Stdio::from(log.try_clone().expect("a descriptor")))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("OpenBao starts");
        let mut bao = Self {
            child,
            address,
            audit,
            token: "".into(),
        };
        runtime.block_on(bao.prepare());
        bao
    }

    /// Initialises, unseals, and makes the key.
    async fn prepare(&mut self) {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).await.is_err() {
            assert!(Instant::now() < until, "OpenBao does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = self.connect().await.post("/v1/sys/init", &shares).await;
        self.token = made["root_token"].as_str().expect("a token").into();
        let key = json!({ "key": made["keys"][0] });
        self.connect().await.post("/v1/sys/unseal", &key).await;
        let mount = json!({ "type": "transit" });
        loop {
            // Until its storage has elected itself, it answers with an error.
            let answer = self
                .connect()
                .await
                .post("/v1/sys/mounts/transit", &mount)
                .await;
            if answer.get("errors").is_none() {
                break;
            }
            assert!(
                Instant::now() < until,
                "OpenBao does not become active: {answer}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let key = json!({ "type": "aes256-gcm96" });
        self.connect()
            .await
            .post("/v1/transit/keys/pii", &key)
            .await;
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("OpenBao listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        Connection {
            sender: Arc::new(Mutex::new(sender)),
            token: Arc::clone(&self.token),
            host: self.address,
        }
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that is kept open. One call at a time.
#[derive(Clone)]
struct Connection {
    sender: Arc<Mutex<http1::SendRequest<Full<Bytes>>>>,
    token: Arc<str>,
    host: SocketAddr,
}

impl Connection {
    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("host", self.host.to_string())
            .header("x-vault-token", &*self.token)
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let mut sender = self.sender.lock().await;
        sender.ready().await.expect("the connection is open");
        let answer = sender.send_request(request).await.expect("an answer");
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        if body.is_empty() {
            return json!({});
        }
        serde_json::from_slice(&body).expect("JSON")
    }
}

/// A loopback address whose port was free a moment ago; OpenBao cannot say which one it took.
fn free_address() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("its address")
}

fn table(rows: &[Row], rounds: usize, length: Duration) -> String {
    let mut text = format!(
        "Load: 29-byte field, one context pair (associated data there); {rounds} interleaved rounds of {} s. Median (smallest to largest).\n\n\
         | load | in flight | Fieldkeep, calls/s | OpenBao, calls/s | ratio | p50 ms | OpenBao p50 | p99 ms | OpenBao p99 | server CPU us a call | OpenBao's |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
        length.as_secs(),
    );
    for row in rows {
        let ms = |measured: &[Measured], percent| {
            spread(
                measured
                    .iter()
                    .map(|m| f64::from(m.percentile_us(percent)) / 1e3),
                2,
            )
        };
        let ratios = row
            .ours
            .iter()
            .zip(&row.theirs)
            .map(|(a, b)| a.rate / b.rate);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | **{}** | {} | {} | {} | {} | {} | {} |",
            if row.batch { "batch of 1,000" } else { "unary" },
            row.in_flight,
            spread(row.ours.iter().map(|m| m.rate), 0),
            spread(row.theirs.iter().map(|m| m.rate), 0),
            spread(ratios, 1),
            ms(&row.ours, 50.0),
            ms(&row.theirs, 50.0),
            ms(&row.ours, 99.0),
            ms(&row.theirs, 99.0),
            spread(row.ours.iter().map(|m| m.cpu_us), 1),
            spread(row.theirs.iter().map(|m| m.cpu_us), 1),
        );
    }
    text
}
