//! A running service with a key `pii`, an admin, and a data identity of each of two tenants.

use fieldkeep_client::{Client, Error};
use fieldkeep_harness::{Home, Identity, Server};
use fieldkeep_proto::v1::CreateGrantRequest;

pub(crate) struct Fixture {
    pub(crate) home: Home,
    pub(crate) server: Server,
    pub(crate) admin_identity: Identity,
    pub(crate) app_identity: Identity,
    pub(crate) other_identity: Identity,
}

impl Fixture {
    pub(crate) fn start() -> Self {
        let home = Home::make();
        let server = home.serve();
        let admin_identity = home.admin();
        let folder = home.path().join("identities");
        server.run(&admin_identity, &["key", "create", "pii"]);
        server.run(&admin_identity, &["tenant", "create", "other"]);
        server.run(
            &admin_identity,
            &["key", "create", "tenants/other/keys/pii"],
        );
        let app_identity = server.issue(&admin_identity, "default", "app", "data", &folder);
        let other_identity = server.issue(&admin_identity, "other", "app-other", "data", &folder);
        Self {
            home,
            server,
            admin_identity,
            app_identity,
            other_identity,
        }
    }

    /// The admin, on the admin listener.
    pub(crate) fn admin(&self) -> Client {
        self.server.admin_client(&self.admin_identity)
    }

    /// `app` of tenant `default`, on the data listener.
    pub(crate) fn app(&self) -> Client {
        self.server.data_client(&self.app_identity)
    }

    /// `app-other` of tenant `other`, on the data listener.
    pub(crate) fn other(&self) -> Client {
        self.server.data_client(&self.other_identity)
    }

    /// Stops the service and starts it again on the same directory.
    pub(crate) fn restart(self) -> Self {
        self.server.stop();
        let server = self.home.serve();
        Self { server, ..self }
    }
}

/// The reason of a refusal.
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.expect_err("this must be refused");
    error
        .reason()
        .map_or_else(|| format!("{error:?}"), str::to_owned)
}

/// Takes everything back that is granted to `principal`, a resource name.
pub(crate) async fn revoke_all(admin: &Client, principal: &str) {
    let grants = admin.grants().list("", principal).collect().await.unwrap();
    assert!(!grants.is_empty(), "nothing is granted to `{principal}`");
    for grant in grants {
        admin.grants().revoke(&grant.name).await.unwrap();
    }
}

/// A grant of `role` for everything in the principal's tenant.
pub(crate) fn role(role: &str, principal: &str) -> CreateGrantRequest {
    CreateGrantRequest {
        principal: principal.to_owned(),
        role: role.to_owned(),
        ..CreateGrantRequest::default()
    }
}

/// The identity `app` of the tenant `default`.
pub(crate) const APP: &str = "tenants/default/identities/app";
