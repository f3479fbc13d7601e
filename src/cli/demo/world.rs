//! The demo's service: a temporary directory, a running server, and clients of its identities.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fieldkeep_client::Client;
use tempfile::TempDir;

use super::super::cert::{issue, make_key_and_csr};
use super::super::failure::{Exit, Failure, file_failure};
use super::super::init::unix_now;
use super::scene::Scene;
use crate::config::{Config, Listen};
use crate::init::{InitOptions, init};
use crate::server::{Running, Server};

/// How long the demo's certificates last.
const TTL: Duration = Duration::from_secs(3_600);

/// What the demo runs on. Dropped, it stops and vanishes.
pub(super) struct World {
    // Fields are dropped in this order: the service goes before its directory.
    running: Option<Running>,
    ca_pem: Vec<u8>,
    data_address: String,
    admin: Client,
    directory: TempDir,
}

impl World {
    /// Makes the directory and starts the service, as `fieldkeep init` and `fieldkeep serve` do.
    pub(super) async fn start(scene: &Scene) -> Result<World, Failure> {
        scene.title("1. Start a service")?;
        let started = Instant::now();
        let directory = tempfile::Builder::new().prefix("fieldkeep-demo-").tempdir();
        let directory = directory
            .map_err(|error| file_failure("make a directory in", &std::env::temp_dir(), &error))?;
        let mut options = InitOptions::new(directory.path().join("fk"), unix_now());
        options.listen = free_ports(options.listen);
        let made = init(options)
            .await
            .map_err(|error| Failure::new(Exit::Failed, &error).caused_by(&error))?;
        let config = Config::load(&made.config)
            .map_err(|error| Failure::new(Exit::Failed, &error).caused_by(&error))?;
        // The directory goes along: whoever interrupts the start, it is removed after the service has ended.
        let (running, directory) = blocking(move || (Server::start(config), directory)).await?;
        let running =
            running.map_err(|error| Failure::new(Exit::Failed, &error).caused_by(&error))?;
        let ca_pem = read(&made.ca)?;
        let admin = Client::builder()
            .address(format!("https://{}", running.admin))
            .ca_pem(&ca_pem)
            .identity_pem(read(&made.admin_certificate)?, read(&made.admin_key)?)
            .build()?;
        let data_address = format!("https://{}", running.data);
        let world = World {
            running: Some(running),
            ca_pem,
            data_address,
            admin,
            directory,
        };
        let status = world.admin.status().await?;
        scene.done(&format!(
            "`fieldkeep init` and `fieldkeep serve` in {} ({:.0} ms)",
            world.directory.path().display(),
            started.elapsed().as_secs_f64() * 1_000.0
        ))?;
        scene.done(&format!(
            "embedded store {}, root key in a {}, data on {}, mutual TLS 1.3",
            status.store, status.root_provider, world.data_address
        ))?;
        Ok(world)
    }

    /// The first admin, connected to the admin listener.
    pub(super) fn admin(&self) -> &Client {
        &self.admin
    }

    /// A file of the demo's own, beside the service's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory of the service: keys, journals, audit trail.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("fk").join("data")
    }

    /// Makes an identity and connects as it to the data listener. Its private key never leaves this function.
    pub(super) async fn identity(&self, tenant: &str, name: &str) -> Result<Client, Failure> {
        let (key_pem, csr_der) = make_key_and_csr()?;
        let signed = issue(
            &self.admin,
            &format!("tenants/{tenant}/identities/{name}"),
            csr_der,
            TTL,
        )
        .await?;
        let client = Client::builder()
            .address(&self.data_address)
            .ca_pem(&self.ca_pem)
            .identity_pem(&signed.certificate_pem, key_pem.as_bytes())
            .build()?;
        Ok(client)
    }

    /// Stops the service and removes everything.
    pub(super) async fn end(mut self, scene: &Scene) -> Result<(), Failure> {
        if let Some(running) = self.running.take() {
            let stopped = blocking(move || running.shutdown()).await?;
            stopped.map_err(|error| Failure::new(Exit::Failed, &error).caused_by(&error))?;
        }
        let path = self.directory.path().to_owned();
        self.directory
            .close()
            .map_err(|error| file_failure("remove", &path, &error))?;
        scene.say("")?;
        scene.done(&format!(
            "the service is stopped, and {} is gone",
            path.display()
        ))
    }
}

fn free_ports(mut free: Listen) -> Listen {
    for address in [&mut free.data, &mut free.admin, &mut free.metrics] {
        address.set_port(0);
    }
    free
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| file_failure("read", path, &error))
}

/// Runs something that blocks, away from the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| {
        Failure::new(Exit::Failed, "a part of the demo did not end").caused_by(&error)
    })
}
