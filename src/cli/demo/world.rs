//! The demo's service: a temporary directory, a running server, and clients of its identities.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fieldkeep_client::Client;

use super::super::cert::{issue, make_key_and_csr};
use super::super::failure::{Failure, file_failure};
use super::super::init::unix_now;
use super::super::local::{Local, failed, temporary_directory};
use super::scene::Scene;
use crate::config::{Config, Listen};
use crate::init::{InitOptions, init};

/// How long the demo's certificates last.
const TTL: Duration = Duration::from_secs(3_600);

/// What the demo runs on. Dropped, it stops and vanishes.
pub(super) struct World {
    service: Local,
    ca_pem: Vec<u8>,
    admin: Client,
    /// Removed with the service.
    directory: PathBuf,
}

impl World {
    /// Makes the directory and starts the service, as `fieldkeep init` and `fieldkeep serve` do.
    pub(super) async fn start(scene: &Scene) -> Result<World, Failure> {
        scene.title("1. Start a service")?;
        let started = Instant::now();
        let temporary = temporary_directory("fieldkeep-demo-")?;
        let directory = temporary.path().to_owned();
        let mut options = InitOptions::new(directory.join("fk"), unix_now());
        options.listen = free_ports(options.listen);
        let made = init(options).await.map_err(|error| failed(&error))?;
        let config = Config::load(&made.config).map_err(|error| failed(&error))?;
        let service = Local::start(config, Some(temporary)).await?;
        let ca_pem = read(&made.ca)?;
        let admin = Client::builder()
            .address(&service.admin_address)
            .ca_pem(&ca_pem)
            .identity_pem(read(&made.admin_certificate)?, read(&made.admin_key)?)
            .build()?;
        let world = World {
            service,
            ca_pem,
            admin,
            directory,
        };
        let status = world.admin.status().await?;
        scene.done(&format!(
            "`fieldkeep init` and `fieldkeep serve` in {} ({:.0} ms)",
            world.directory.display(),
            started.elapsed().as_secs_f64() * 1_000.0
        ))?;
        scene.done(&format!(
            "embedded store {}, root key in a {}, data on {}, mutual TLS 1.3",
            status.store, status.root_provider, world.service.data_address
        ))?;
        Ok(world)
    }

    /// The first admin, connected to the admin listener.
    pub(super) fn admin(&self) -> &Client {
        &self.admin
    }

    /// A file of the demo's own, beside the service's directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of the service: keys, journals, audit trail.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.directory.join("fk").join("data")
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
            .address(&self.service.data_address)
            .ca_pem(&self.ca_pem)
            .identity_pem(&signed.certificate_pem, key_pem.as_bytes())
            .build()?;
        Ok(client)
    }

    /// Stops the service and removes everything.
    pub(super) async fn end(self, scene: &Scene) -> Result<(), Failure> {
        self.service.stop().await?;
        scene.say("")?;
        scene.done(&format!(
            "the service is stopped, and {} is gone",
            self.directory.display()
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
