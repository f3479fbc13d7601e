//! Runs the real `fieldkeep` binary for tests, benchmarks and fault runs: its own temporary directory, free ports on
//! loopback, and an end by process id.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness for tests: a failure here fails the test"
)]

pub mod canary;
pub mod records;

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use fieldkeep_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The `fieldkeep` binary of this build: beside the running program, or one folder up for test programs.
pub fn binary() -> PathBuf {
    let program = env::current_exe().expect("the running program has a path");
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("fieldkeep"))
        .find(|path| path.is_file())
        .expect("the `fieldkeep` binary is built: run through `cargo test --workspace` or `cargo xtask`")
}

/// A directory made by `fieldkeep init`, with all listeners on free ports.
pub struct Home {
    temporary: TempDir,
}

/// The PEM files of one identity.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Home {
    /// Runs `fieldkeep init` with a key-file root in a new temporary directory.
    pub fn make() -> Self {
        Self::make_with(&[])
    }

    /// The same with more arguments to `init`.
    pub fn make_with(arguments: &[&str]) -> Self {
        Self::make_at(TempDir::new().expect("a temporary directory"), arguments)
    }

    /// The same below a folder of the caller's, a small file system for example.
    pub fn make_in(folder: &Path) -> Self {
        Self::make_at(TempDir::new_in(folder).expect("a temporary directory"), &[])
    }

    fn make_at(temporary: TempDir, arguments: &[&str]) -> Self {
        let home = Self { temporary };
        let output = Command::new(binary())
            .arg("init")
            .arg("--dir")
            .arg(home.path())
            .args([
                "--data-addr",
                "127.0.0.1:0",
                "--admin-addr",
                "127.0.0.1:0",
                "--metrics-addr",
                "127.0.0.1:0",
            ])
            .args(arguments)
            .output()
            .expect("`fieldkeep init` starts");
        assert!(
            output.status.success(),
            "init: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        home
    }

    /// The directory that `init` made.
    pub fn path(&self) -> PathBuf {
        self.temporary.path().join("fieldkeep")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path().join("fieldkeep.toml")
    }

    /// The CA certificate that clients trust.
    pub fn ca(&self) -> PathBuf {
        self.path().join("tls/ca.pem")
    }

    /// The first admin identity.
    pub fn admin(&self) -> Identity {
        self.identity("admin")
    }

    /// An identity in the directory's `identities/`.
    pub fn identity(&self, name: &str) -> Identity {
        let folder = self.path().join("identities");
        Identity {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        }
    }

    /// Starts `fieldkeep serve` and waits until it is ready.
    pub fn serve(&self) -> Server {
        self.try_serve()
            .unwrap_or_else(|refusal| panic!("serve: {refusal}"))
    }

    /// The same with more arguments.
    pub fn serve_with(&self, more: &[&str]) -> Server {
        self.try_serve_with(more)
            .unwrap_or_else(|refusal| panic!("serve: {refusal}"))
    }

    /// Starts `fieldkeep serve` and kills it after `delay`, ready or not.
    pub fn serve_and_kill_after(&self, delay: Duration) {
        let mut child = Command::new(binary())
            .arg("serve")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`fieldkeep serve` starts");
        thread::sleep(delay);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The same by another program, which is given the binary as an argument already: a tool that looks on.
    pub fn serve_by(&self, program: Command) -> Server {
        self.start(program, &[])
            .unwrap_or_else(|refusal| panic!("serve: {refusal}"))
    }

    /// Starts `fieldkeep serve`; its standard error if it ends before it is ready.
    pub fn try_serve(&self) -> Result<Server, String> {
        self.try_serve_with(&[])
    }

    /// The same with more arguments.
    pub fn try_serve_with(&self, more: &[&str]) -> Result<Server, String> {
        self.start(Command::new(binary()), more)
    }

    fn start(&self, mut program: Command, more: &[&str]) -> Result<Server, String> {
        let mut child = program
            .arg("serve")
            .arg("--config")
            .arg(self.config())
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`fieldkeep serve` starts");
        let mut errors = child.stderr.take().expect("piped");
        let log = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output
            .read_line(&mut line)
            .expect("standard output can be read");
        let address = |name: &str| -> Option<SocketAddr> {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        let (Some(data), Some(admin), Some(metrics)) =
            (address("data"), address("admin"), address("metrics"))
        else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(log.join().expect("the log thread ends"));
        };
        Ok(Server {
            child,
            log: Some(log),
            data,
            admin,
            metrics,
            ca: self.ca(),
        })
    }
}

/// A running `fieldkeep serve`. Dropping it kills it.
pub struct Server {
    child: Child,
    log: Option<thread::JoinHandle<String>>,
    /// The data listener.
    pub data: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The metrics listener.
    pub metrics: SocketAddr,
    ca: PathBuf,
}

impl Server {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of the data listener.
    pub fn data_client(&self, identity: &Identity) -> Client {
        self.client(self.data, identity)
    }

    /// A client of the admin listener.
    pub fn admin_client(&self, identity: &Identity) -> Client {
        self.client(self.admin, identity)
    }

    fn client(&self, address: SocketAddr, identity: &Identity) -> Client {
        Client::builder()
            .address(address.to_string())
            .ca_file(&self.ca)
            .identity_files(&identity.certificate, &identity.key)
            // The load shape of the benchmark counts connections by clients.
            .connections(1)
            .build()
            .expect("the identity's files are valid")
    }

    /// `fieldkeep` with this server's admin listener and an identity in its environment.
    pub fn command<I: AsRef<OsStr>>(
        &self,
        identity: &Identity,
        arguments: impl IntoIterator<Item = I>,
    ) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .env("FIELDKEEP_ADDR", self.admin.to_string())
            .env("FIELDKEEP_CA", &self.ca)
            .env("FIELDKEEP_CERT", &identity.certificate)
            .env("FIELDKEEP_KEY", &identity.key)
            .env("NO_COLOR", "1");
        command
    }

    /// Runs `fieldkeep` as `identity` and asserts that it succeeds. Returns standard output.
    pub fn run(&self, identity: &Identity, arguments: &[&str]) -> String {
        let output = self
            .command(identity, arguments)
            .output()
            .expect("`fieldkeep` starts");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).expect("standard output is UTF-8")
    }

    /// Issues a certificate into `folder` and grants `role` for everything in its tenant, or all tenants if it is `admin`.
    pub fn issue(
        &self,
        admin: &Identity,
        tenant: &str,
        name: &str,
        role: &str,
        folder: &Path,
    ) -> Identity {
        fs::create_dir_all(folder).expect("the folder can be made");
        let out = folder.to_str().expect("a UTF-8 path");
        let mut arguments = vec![
            "cert", "issue", name, "--tenant", tenant, "--grant", role, "--out", out,
        ];
        if role == "admin" {
            arguments.push("--all-tenants");
        }
        self.run(admin, &arguments);
        Identity {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        }
    }

    /// kill -9, and waits for the end.
    pub fn kill(mut self) -> String {
        let _ = self.child.kill();
        self.end()
    }

    /// SIGTERM, and waits for the end. Asserts that the exit code is 0. Returns the log.
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("the child can be waited for");
        let log = self.end();
        assert!(status.success(), "serve ended with {status}:\n{log}");
        log
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is alive");
    }

    /// Waits until the process ends by itself. Returns its exit code and log.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("the child can be waited for");
        (status.code(), self.end())
    }

    fn end(&mut self) -> String {
        let _ = self.child.wait();
        self.log
            .take()
            .map(|log| log.join().expect("the log thread ends"))
            .unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
