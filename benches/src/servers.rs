//! The two servers of a run, with one identity and the same keys, and where they run.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream as BlockingStream},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use fieldkeep_client::{Client, ClientBuilder};
use fieldkeep_harness::{Home, Identity, Server, binary};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    issuer::Issuer,
    rows::{KEY, OLD_KEY, Pool},
};

/// A directory with an identity of the role `data`, and the keys of all rows.
pub(crate) struct Place {
    home: Home,
    app: Identity,
}

/// Fieldkeep, or the baseline.
pub(crate) struct Target {
    process: Process,
    data: SocketAddr,
    admin: Option<Identity>,
}

enum Process {
    Fieldkeep(Server),
    Bare(Bare),
}

/// The baseline's process. Dropping it kills it.
struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    pub(crate) fn make() -> Self {
        let home = Home::make();
        let server = home.serve();
        let admin = home.admin();
        let folder = home.path().join("identities");
        let app = server.issue(&admin, "default", "app", "data", &folder);
        for key in [KEY, OLD_KEY] {
            server.run(&admin, &["key", "create", key]);
        }
        server.stop();
        Self { home, app }
    }

    /// Adds to the configuration of the servers that are started from now on.
    pub(crate) fn configure(&self, more: &str) {
        let path = self.home.config();
        let config = fs::read_to_string(&path).expect("the configuration can be read");
        fs::write(&path, format!("{config}\n{more}\n")).expect("the configuration can be written");
    }

    /// Starts Fieldkeep, below `wrapper` if that names a program.
    pub(crate) fn fieldkeep(&self, wrapper: &[&str]) -> Target {
        self.serve_by(wrapped(wrapper, binary().as_os_str()))
    }

    /// Starts a program that takes the arguments of Fieldkeep.
    pub(crate) fn serve_by(&self, program: Command) -> Target {
        let server = self.home.serve_by(program);
        Target {
            data: server.data,
            process: Process::Fieldkeep(server),
            admin: Some(self.home.admin()),
        }
    }

    /// Starts the baseline likewise.
    pub(crate) fn bare(&self, wrapper: &[&str]) -> Target {
        let program = env::current_exe().expect("the running program has a path");
        let mut child = wrapped(wrapper, program.as_os_str())
            .arg("baseline")
            .arg(self.home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the baseline starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("its ready line");
        let data = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("data=")?.parse().ok())
            .expect("an address");
        Target {
            data,
            process: Process::Bare(Bare(child)),
            admin: None,
        }
    }

    /// Clients of `target`, each with a connection of its own. They belong to the runtime that they are made in.
    pub(crate) fn clients(&self, target: &Target, count: usize) -> Vec<Client> {
        connect(&self.home, target.data, &self.app, count)
    }

    /// The same, of callers without a certificate.
    pub(crate) fn clients_by(
        &self,
        target: &Target,
        count: usize,
        credential: impl Fn(ClientBuilder) -> ClientBuilder,
    ) -> Vec<Client> {
        let client = || {
            let builder = Client::builder()
                .address(target.data.to_string())
                .ca_file(self.home.ca())
                .connections(1);
            credential(builder)
                .build()
                .expect("the credential is valid")
        };
        (0..count).map(|_| client()).collect()
    }

    /// A connection of its own without a certificate, and without the SDK.
    pub(crate) fn channel(&self, target: &Target) -> Channel {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.home.ca()).expect("the CA's file");
        roots.add(ca).expect("a CA");
        let mut tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(tls)), target.data);
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").expect("a name");
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
    }

    /// An API key of the identity, from the running service.
    pub(crate) fn api_key(&self, target: &Target) -> String {
        let made = target.run(&["api-key", "create", "app"]);
        made.trim().to_owned()
    }

    /// An identity provider whose callers may do what the identity may.
    pub(crate) fn issuer(&self, target: &Target) -> Issuer {
        let issuer = Issuer::start();
        let arguments = issuer.arguments();
        target.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        target.run(&["grant", "create", "callers", "--group", "--role", "data"]);
        issuer
    }

    /// Ciphertexts of `target`, of which those of [`OLD_KEY`] are behind.
    pub(crate) async fn pool(&self, target: &Target, client: &Client) -> Arc<Pool> {
        let pool = Pool::make(client).await;
        if let (Process::Fieldkeep(server), Some(admin)) = (&target.process, &target.admin) {
            server.run(admin, &["key", "rotate", OLD_KEY]);
        }
        pool
    }
}

impl Target {
    /// Runs a command of the admin's.
    fn run(&self, arguments: &[&str]) -> String {
        match (&self.process, &self.admin) {
            (Process::Fieldkeep(server), Some(admin)) => server.run(admin, arguments),
            _ => panic!("the baseline has no admin"),
        }
    }

    /// What it shows at its metrics listener, in the Prometheus text format.
    pub(crate) fn metrics(&self) -> String {
        let Process::Fieldkeep(server) = &self.process else {
            panic!("the baseline has no metrics");
        };
        let mut stream = BlockingStream::connect(server.metrics).expect("the metrics listener");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("it takes a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            Process::Fieldkeep(server) => server.pid(),
            Process::Bare(bare) => bare.0.id(),
        }
    }

    /// Ends it and returns what it wrote to standard error.
    pub(crate) fn stop(self) -> String {
        match self.process {
            Process::Fieldkeep(server) => server.stop(),
            Process::Bare(mut bare) => {
                let child = &mut bare.0;
                kill_process(Pid::from_child(child), Signal::TERM).expect("it is alive");
                let mut text = String::new();
                let mut errors = child.stderr.take().expect("piped");
                errors.read_to_string(&mut text).expect("its errors");
                text
            }
        }
    }
}

/// Clients with a connection each. They belong to the runtime that they are made in.
pub(crate) fn connect(
    home: &Home,
    address: SocketAddr,
    identity: &Identity,
    count: usize,
) -> Vec<Client> {
    let client = || {
        Client::builder()
            .address(address.to_string())
            .ca_file(home.ca())
            .identity_files(&identity.certificate, &identity.key)
            .connections(1)
            .build()
            .expect("the identity's files are valid")
    };
    (0..count).map(|_| client()).collect()
}

fn wrapped(wrapper: &[&str], program: &std::ffi::OsStr) -> Command {
    match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// Pins this thread, and every thread and process that it starts from now on, to one core; without a number to all.
pub(crate) fn pin(core: Option<usize>) {
    let mut set = CpuSet::new();
    match core {
        Some(core) => set.set(core),
        None => (0..CpuSet::MAX_CPU).for_each(|core| set.set(core)),
    }
    sched_setaffinity(None, &set).expect("there is such a core");
}
