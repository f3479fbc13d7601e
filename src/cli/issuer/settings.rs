//! The settings of an issuer, from options or from a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use fieldkeep_proto::v1;
use serde::Deserialize;

use crate::cli::failure::{Exit, Failure, file_failure};
use crate::cli::grant::role_names;

/// What OpenID providers sign with unless they are told otherwise (OpenID Connect Core 1.0, section 3.1.3.7).
const DEFAULT_ALGORITHM: &str = "RS256";
/// An application that reads and writes its own fields.
const DEFAULT_CEILING: &str = "data";

/// The settings as options.
#[derive(Debug, Args)]
pub(super) struct SettingArgs {
    /// The issuer's URL, exactly as its tokens have it in `iss`
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// What means this service in `aud`; may be given several times
    #[arg(long = "audience", value_name = "TEXT")]
    audiences: Vec<String>,
    /// The tenant of its callers; several with --tenant-claim
    #[arg(long = "tenant", value_name = "TENANT")]
    tenants: Vec<String>,
    /// The claim that names the caller's tenant
    #[arg(long, value_name = "CLAIM")]
    tenant_claim: Option<String>,
    /// The claim that names the caller [default: sub]
    #[arg(long, value_name = "CLAIM")]
    name_claim: Option<String>,
    /// `escape` makes a name of what is none, such as an e-mail address [default: exact]
    #[arg(long, value_name = "exact|escape", value_parser = ["exact", "escape"], hide_possible_values = true)]
    name_rule: Option<String>,
    /// The claim that lists groups, or a JSON pointer [default: none]
    #[arg(long, value_name = "CLAIM")]
    groups_claim: Option<String>,
    /// The group that a scope gives; may be given several times
    #[arg(long = "scope", value_name = "SCOPE=GROUP")]
    scopes: Vec<String>,
    /// The highest role that its callers can use, whatever they are granted [default: data]
    #[arg(long, value_name = "ROLE", value_parser = role_names())]
    ceiling: Option<String>,
    /// What it signs with; may be given several times [default: RS256]
    #[arg(long = "algorithm", value_name = "NAME")]
    algorithms: Vec<String>,
    /// The CA certificate that its TLS certificate descends from, PEM [default: the public ones]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Where its keys are [default: as its discovery document says]
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
}

impl SettingArgs {
    /// Whether any option was given.
    pub(super) fn are_given(&self) -> bool {
        let Self {
            url,
            audiences,
            tenants,
            tenant_claim,
            name_claim,
            name_rule,
            groups_claim,
            scopes,
            ceiling,
            algorithms,
            root,
            jwks_url,
        } = self;
        let texts = [
            url,
            tenant_claim,
            name_claim,
            name_rule,
            groups_claim,
            ceiling,
            jwks_url,
        ];
        let lists = [audiences, tenants, scopes, algorithms];
        texts.into_iter().any(Option::is_some)
            || lists.into_iter().any(|list| !list.is_empty())
            || root.is_some()
    }

    /// The same as a file would have it.
    pub(super) fn into_file(self) -> Result<IssuerFile, Failure> {
        let missing = |option, why| {
            Failure::new(Exit::Usage, format_args!("{option} is not given: {why}"))
                .help("see `fieldkeep issuer add --help`; --file takes all settings from a file")
        };
        let url = self
            .url
            .ok_or_else(|| missing("--url", "tokens name their issuer by it"))?;
        if self.audiences.is_empty() {
            return Err(missing(
                "--audience",
                "without one of its own, a token for another service would open fields",
            ));
        }
        if self.tenants.is_empty() {
            return Err(missing(
                "--tenant",
                "an issuer vouches for named tenants alone",
            ));
        }
        let scope = |text: &String| match text.rsplit_once('=') {
            Some((scope, group)) => Ok((scope.to_owned(), group.to_owned())),
            None => Err(Failure::new(
                Exit::Usage,
                format_args!("`{text}` is not SCOPE=GROUP"),
            )),
        };
        Ok(IssuerFile {
            url,
            audiences: self.audiences,
            tenants: self.tenants,
            tenant_claim: self.tenant_claim,
            name_claim: self.name_claim,
            name_rule: self.name_rule,
            groups_claim: self.groups_claim,
            scopes: self.scopes.iter().map(scope).collect::<Result<_, _>>()?,
            ceiling: self.ceiling,
            algorithms: self.algorithms,
            root_certificate: self.root,
            jwks_url: self.jwks_url,
            ..IssuerFile::default()
        })
    }
}

/// The settings as a file has them, under the names of the documentation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerFile {
    url: String,
    jwks_url: Option<String>,
    /// A PEM file.
    root_certificate: Option<PathBuf>,
    audiences: Vec<String>,
    #[serde(default)]
    algorithms: Vec<String>,
    #[serde(default)]
    token_types: Vec<String>,
    tenant: Option<String>,
    tenant_claim: Option<String>,
    name_claim: Option<String>,
    name_rule: Option<String>,
    groups_claim: Option<String>,
    scope_claim: Option<String>,
    #[serde(default)]
    scopes: BTreeMap<String, String>,
    #[serde(default)]
    acr_values: Vec<String>,
    #[serde(default)]
    amr_values: Vec<String>,
    #[serde(default)]
    tenants: Vec<String>,
    ceiling: Option<String>,
    #[serde(default)]
    cross_tenant: bool,
    leeway_seconds: Option<u32>,
    max_age_seconds: Option<u32>,
}

impl IssuerFile {
    /// Reads a file; paths in it are relative to it.
    pub(super) fn read(path: &Path) -> Result<IssuerFile, Failure> {
        let text =
            std::fs::read_to_string(path).map_err(|error| file_failure("read", path, &error))?;
        let mut file: IssuerFile = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| span.start);
            let line = text.get(..line).unwrap_or(&text).matches('\n').count() + 1;
            let shown = path.display();
            Failure::new(
                Exit::Invalid,
                format_args!("`{shown}`, line {line}: {}", error.message()),
            )
            .help("see `fieldkeep issuer add --help` for the form of the file")
        })?;
        if let Some(root) = &mut file.root_certificate {
            *root = path.parent().unwrap_or(Path::new("")).join(&root);
        }
        Ok(file)
    }

    /// The message, with the defaults of this command.
    pub(super) fn into_issuer(self, name: &str) -> Result<v1::Issuer, Failure> {
        let (tenant, tenants) = self.tenants()?;
        let resource = |tenant: &String| format!("tenants/{tenant}");
        let root_certificate_pem = match &self.root_certificate {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| file_failure("read", path, &error))?
            }
        };
        let or = |given: Vec<String>, default: &str| match given.is_empty() {
            true => vec![default.to_owned()],
            false => given,
        };
        let scopes = self.scopes.into_iter();
        Ok(v1::Issuer {
            name: name.to_owned(),
            url: self.url,
            jwks_url: self.jwks_url.unwrap_or_default(),
            root_certificate_pem,
            audiences: self.audiences,
            algorithms: or(self.algorithms, DEFAULT_ALGORITHM),
            token_types: self.token_types,
            tenant: tenant.as_ref().map(resource).unwrap_or_default(),
            tenant_claim: self.tenant_claim.unwrap_or_default(),
            name_claim: self.name_claim.unwrap_or_default(),
            name_rule: self.name_rule.unwrap_or_default(),
            groups_claim: self.groups_claim.unwrap_or_default(),
            scope_claim: self.scope_claim.unwrap_or_default(),
            scopes: scopes
                .map(|(scope, group)| v1::IssuerScope { scope, group })
                .collect(),
            acr_values: self.acr_values,
            amr_values: self.amr_values,
            tenants: tenants.iter().map(resource).collect(),
            ceiling: self.ceiling.unwrap_or_else(|| DEFAULT_CEILING.to_owned()),
            cross_tenant: self.cross_tenant,
            leeway_seconds: self.leeway_seconds,
            max_age_seconds: self.max_age_seconds,
            set_time: None,
            set_by: String::new(),
        })
    }

    /// The tenant of all callers, unless a claim names it, and the tenants that the issuer vouches for.
    fn tenants(&self) -> Result<(Option<String>, Vec<String>), Failure> {
        let unclear = |what: &str| Err(Failure::new(Exit::Usage, what));
        match (&self.tenant, &self.tenant_claim, self.tenants.as_slice()) {
            (None, None, [only]) => Ok((Some(only.clone()), vec![only.clone()])),
            (Some(tenant), None, []) => Ok((Some(tenant.clone()), vec![tenant.clone()])),
            (tenant, _, [_, ..]) if tenant.is_some() || self.tenant_claim.is_some() => {
                Ok((tenant.clone(), self.tenants.clone()))
            }
            (None, None, [_, _, ..]) => unclear(
                "with more than one tenant it takes the claim that names a caller's: --tenant-claim, or `tenant_claim`",
            ),
            _ => unclear("an issuer vouches for named tenants alone: give them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(text: &str) -> Result<v1::Issuer, Failure> {
        let file: IssuerFile = toml::from_str(text).unwrap();
        file.into_issuer("login")
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let made = issuer("url = 'u'\naudiences = ['fk']\ntenants = ['acme']").unwrap();
        assert_eq!(made.name, "login");
        assert_eq!(made.algorithms, ["RS256"]);
        assert_eq!(made.ceiling, "data");
        assert_eq!(made.tenant, "tenants/acme");
        assert_eq!(made.tenants, ["tenants/acme"]);
        let made = issuer("url = 'u'\naudiences = ['fk']\ntenant = 'acme'").unwrap();
        assert_eq!(made.tenants, ["tenants/acme"]);
    }

    #[test]
    fn whose_callers_they_are_is_never_guessed() {
        let base = "url = 'u'\naudiences = ['fk']\n";
        for text in ["", "tenants = ['a', 'b']", "tenant_claim = 'org'"] {
            assert!(issuer(&format!("{base}{text}")).is_err(), "{text}");
        }
        let made = issuer(&format!("{base}tenants = ['a', 'b']\ntenant_claim = 'org'")).unwrap();
        assert_eq!((made.tenant.as_str(), made.tenants.len()), ("", 2));
        let made = issuer(&format!("{base}tenants = ['a', 'b']\ntenant = 'b'")).unwrap();
        assert_eq!(made.tenant, "tenants/b");
    }

    #[test]
    fn the_file_of_the_documentation_is_one() {
        let page = include_str!("../../../docs/access-tokens.md");
        let (_, rest) = page.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let made = issuer(text).unwrap();
        assert_eq!(made.tenant_claim, "org");
        assert_eq!(made.scopes[0].group, "support");
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused() {
        let text = "url = 'u'\naudiences = ['fk']\ntenant = 'a'\nverify = false";
        assert!(toml::from_str::<IssuerFile>(text).is_err());
    }
}
