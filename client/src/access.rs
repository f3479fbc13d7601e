//! Who may do what: grants, groups, and questions about both.
//!
//! The caller's identity needs the right to grant, or to describe for what only reads.

use fieldkeep_proto::v1;

use crate::admin::tenant_name;
use crate::{Client, Error, Pages, request_id::make_request_id};

/// Management of grants, from [`Client::grants`].
///
/// An identity is named `tenants/{tenant}/identities/{name}` and a group `tenants/{tenant}/groups/{name}`.
#[derive(Clone, Copy, Debug)]
pub struct Grants<'a>(&'a Client);

/// Management of groups, from [`Client::groups`].
///
/// A group is its members: it begins with the first and ends with the last.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a>(&'a Client);

impl Client {
    /// Management of grants.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let grants = client.grants().list("acme", "").collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn grants(&self) -> Grants<'_> {
        Grants(self)
    }

    /// Management of groups.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let groups = client.groups().list("acme").collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn groups(&self) -> Groups<'_> {
        Groups(self)
    }

    /// Tells which grant allows an identity something, or what is missing and which command would give it.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::ExplainAccessRequest;
    /// let asked = ExplainAccessRequest {
    ///     principal: "tenants/acme/identities/alice".into(),
    ///     action: "decrypt".into(),
    ///     key: "tenants/acme/keys/pii".into(),
    ///     field: "customer.ssn".into(),
    ///     ..ExplainAccessRequest::default()
    /// };
    /// let explained = client.explain_access(asked).await?;
    /// println!("{} {}", explained.allowed, explained.message);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn explain_access(
        &self,
        request: v1::ExplainAccessRequest,
    ) -> Result<v1::ExplainAccessResponse, Error> {
        let path = "/fieldkeep.v1.AccessService/ExplainAccess";
        self.unary(path, request, self.plan()).await
    }

    /// Lists the grants that allow something, and who has them. The pages of `request` are taken care of.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::WhoCanRequest;
    /// let asked = WhoCanRequest {
    ///     action: "decrypt".into(),
    ///     key: "tenants/acme/keys/pii".into(),
    ///     field: "customer.ssn".into(),
    ///     ..WhoCanRequest::default()
    /// };
    /// for holder in client.who_can(asked).collect().await? {
    ///     println!("{:?}", holder.identities);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn who_can(&self, request: v1::WhoCanRequest) -> Pages<v1::Holder> {
        Pages::new(self, move |client, page_size, page_token| {
            let request = v1::WhoCanRequest {
                page_size,
                page_token,
                ..request.clone()
            };
            async move {
                let path = "/fieldkeep.v1.AccessService/WhoCan";
                let page: v1::WhoCanResponse = client.unary(path, request, client.plan()).await?;
                Ok((page.holders, page.next_page_token))
            }
        })
    }
}

impl Grants<'_> {
    /// Grants a role for keys and fields to an identity or a group. Without a `request_id` one is made.
    ///
    /// # Errors
    /// [`SELF_GRANT`](crate::reason::SELF_GRANT), [`ACCESS_FULL`](crate::reason::ACCESS_FULL) and others of [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// use fieldkeep_proto::v1::CreateGrantRequest;
    /// let wanted = CreateGrantRequest {
    ///     principal: "tenants/acme/identities/app".into(),
    ///     role: "data".into(),
    ///     keys: vec!["pii".into()],
    ///     fields: vec!["customer.*".into()],
    ///     ..CreateGrantRequest::default()
    /// };
    /// let grant = client.grants().create(wanted).await?;
    /// println!("{}", grant.name);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(&self, mut request: v1::CreateGrantRequest) -> Result<v1::Grant, Error> {
        if request.request_id.is_empty() {
            request.request_id = make_request_id()?;
        }
        let path = "/fieldkeep.v1.AccessService/CreateGrant";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Shows a grant.
    ///
    /// # Errors
    /// [`GRANT_NOT_FOUND`](crate::reason::GRANT_NOT_FOUND) and others of [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let grant = client.grants().show("g-0123456789abcdef").await?;
    /// println!("{} {}", grant.principal, grant.role);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn show(&self, name: &str) -> Result<v1::Grant, Error> {
        let request = v1::GetGrantRequest {
            name: name.to_owned(),
        };
        let path = "/fieldkeep.v1.AccessService/GetGrant";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Lists the grants that open `tenant`, or all if it is empty; those of one identity or group alone, unless `principal` is
    /// empty.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let of_app = "tenants/acme/identities/app";
    /// for grant in client.grants().list("acme", of_app).collect().await? {
    ///     println!("{} {:?}", grant.name, grant.keys);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, tenant: &str, principal: &str) -> Pages<v1::Grant> {
        let (parent, principal) = (tenant_name(tenant), principal.to_owned());
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListGrantsRequest {
                parent: parent.clone(),
                principal: principal.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.AccessService/ListGrants";
                let page: v1::ListGrantsResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.grants, page.next_page_token))
            }
        })
    }

    /// Takes a grant back. What it allowed ends at once, on open connections too.
    ///
    /// # Errors
    /// [`GRANT_NOT_FOUND`](crate::reason::GRANT_NOT_FOUND), [`LAST_GRANTOR`](crate::reason::LAST_GRANTOR) and others of
    /// [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// client.grants().revoke("g-0123456789abcdef").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn revoke(&self, name: &str) -> Result<(), Error> {
        let request = v1::RevokeGrantRequest {
            name: name.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.AccessService/RevokeGrant";
        let _: v1::RevokeGrantResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(())
    }
}

impl Groups<'_> {
    /// Puts an identity into a group. That it is in it already is success.
    ///
    /// # Errors
    /// [`SELF_GRANT`](crate::reason::SELF_GRANT), [`ACCESS_FULL`](crate::reason::ACCESS_FULL) and others of [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let (group, alice) = ("tenants/acme/groups/support", "tenants/acme/identities/alice");
    /// client.groups().add(group, alice).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn add(&self, group: &str, member: &str) -> Result<v1::GroupMember, Error> {
        let request = v1::AddGroupMemberRequest {
            group: group.to_owned(),
            member: member.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.AccessService/AddGroupMember";
        self.0.unary(path, request, self.0.plan()).await
    }

    /// Takes an identity out of a group. What it had through the group ends at once, on open connections too.
    ///
    /// # Errors
    /// [`MEMBER_NOT_FOUND`](crate::reason::MEMBER_NOT_FOUND), [`LAST_GRANTOR`](crate::reason::LAST_GRANTOR) and others of
    /// [`Error`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// let (group, alice) = ("tenants/acme/groups/support", "tenants/acme/identities/alice");
    /// client.groups().remove(group, alice).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, group: &str, member: &str) -> Result<(), Error> {
        let request = v1::RemoveGroupMemberRequest {
            group: group.to_owned(),
            member: member.to_owned(),
            request_id: make_request_id()?,
        };
        let path = "/fieldkeep.v1.AccessService/RemoveGroupMember";
        let _: v1::RemoveGroupMemberResponse = self.0.unary(path, request, self.0.plan()).await?;
        Ok(())
    }

    /// Lists the groups of `tenant`, or of all if it is empty.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for group in client.groups().list("acme").collect().await? {
    ///     println!("{} has {} members", group.name, group.members);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn list(&self, tenant: &str) -> Pages<v1::Group> {
        let parent = tenant_name(tenant);
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListGroupsRequest {
                parent: parent.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.AccessService/ListGroups";
                let page: v1::ListGroupsResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.groups, page.next_page_token))
            }
        })
    }

    /// Lists the members of a group.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), fieldkeep_client::Error> {
    /// # let client = fieldkeep_client::Client::from_env()?;
    /// for member in client.groups().members("tenants/acme/groups/support").collect().await? {
    ///     println!("{}", member.member);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn members(&self, group: &str) -> Pages<v1::GroupMember> {
        let group = group.to_owned();
        Pages::new(self.0, move |client, page_size, page_token| {
            let request = v1::ListGroupMembersRequest {
                group: group.clone(),
                page_size,
                page_token,
            };
            async move {
                let path = "/fieldkeep.v1.AccessService/ListGroupMembers";
                let page: v1::ListGroupMembersResponse =
                    client.unary(path, request, client.plan()).await?;
                Ok((page.members, page.next_page_token))
            }
        })
    }
}
