use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;

use super::*;
use crate::access::trust::{Root, TrustState};

struct Fixture {
    authority: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
    reloader: Reloader,
    current: Arc<ArcSwap<ServerConfig>>,
}

struct Pair {
    certificate: String,
    key: String,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn pair(authority: &CertifiedIssuer<'static, KeyPair>) -> Pair {
    let mut params = CertificateParams::new(vec![String::from("localhost")]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    Pair {
        certificate: params.signed_by(&key, authority).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

impl Fixture {
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority();
        let path = |name| dir.path().join(name);
        let tls = Tls {
            ca: path("ca.pem"),
            cert: path("server.pem"),
            key: path("server.key"),
            trust_domain: String::from("fieldkeep"),
        };
        let first = pair(&authority);
        fs::write(&tls.ca, authority.pem()).unwrap();
        fs::write(&tls.cert, &first.certificate).unwrap();
        fs::write(&tls.key, &first.key).unwrap();
        fs::set_permissions(&tls.key, fs::Permissions::from_mode(0o600)).unwrap();
        let ca = authority.der().clone();
        let root = Arc::new(Root::built_in(&ca, "fieldkeep").unwrap());
        let trust = Trust::new(TrustState::new(vec![root], Arc::default()));
        let identity = Identity::load(&tls.cert, &tls.key).unwrap();
        let config = server_config(&trust, &ca, identity).unwrap();
        let current = Arc::new(ArcSwap::new(config));
        let metrics = Arc::new(Metrics::new().unwrap());
        let ends = CertificateEnd::at(1);
        let reloader = Reloader::new(tls, ca, trust, Arc::clone(&current), ends, metrics);
        Self {
            authority,
            dir,
            reloader,
            current,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn look(&mut self) -> Looked {
        self.reloader.look(SystemClock.now_us() / 1_000_000)
    }

    /// Looks, and asserts that what was served is still served.
    fn keeps(&mut self) {
        let before = self.current.load_full();
        assert_ne!(self.look(), Looked::Reloaded);
        assert!(Arc::ptr_eq(&before, &self.current.load_full()));
    }
}

#[test]
fn a_new_pair_is_served_and_the_same_one_is_not_read_again() {
    let mut f = Fixture::make();
    assert_eq!(f.look(), Looked::Unchanged);
    let new = pair(&f.authority);
    f.write("server.key", &new.key);
    f.keeps();
    f.write("server.pem", &new.certificate);
    let before = f.current.load_full();
    assert_eq!(f.look(), Looked::Reloaded);
    assert!(!Arc::ptr_eq(&before, &f.current.load_full()));
    assert_ne!(f.reloader.ends.unix_s(), 1);
    assert_eq!(f.look(), Looked::Unchanged);
    assert_eq!(f.reloader.metrics.tls_reloads.get(), 1);
    assert_eq!(f.reloader.metrics.tls_reload_failures.get(), 1);
}

#[test]
fn a_pair_that_is_cut_at_any_byte_is_never_served() {
    let mut f = Fixture::make();
    let new = pair(&f.authority);
    // In either order, torn at every place.
    for part in (0..new.certificate.len()).step_by(13) {
        f.write("server.pem", &new.certificate[..part]);
        f.keeps();
    }
    f.write("server.pem", &new.certificate);
    f.keeps();
    for part in (0..new.key.len() - 30).step_by(7) {
        f.write("server.key", &new.key[..part]);
        f.keeps();
    }
    f.write("server.key", &new.key);
    assert_eq!(f.look(), Looked::Reloaded);
}

#[test]
fn what_clients_would_not_trust_is_not_served() {
    let mut f = Fixture::make();
    let foreign = pair(&authority());
    f.write("server.pem", &foreign.certificate);
    f.write("server.key", &foreign.key);
    f.keeps();
    let new = pair(&f.authority);
    f.write("server.pem", &new.certificate);
    f.write("server.key", &new.key);
    f.write("ca.pem", &authority().pem());
    f.keeps();
    f.write("ca.pem", &f.authority.pem());
    assert_eq!(f.look(), Looked::Reloaded);
    // A key that others may read.
    let newer = pair(&f.authority);
    f.write("server.pem", &newer.certificate);
    f.write("server.key", &newer.key);
    let key = f.dir.path().join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    f.keeps();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(f.look(), Looked::Reloaded);
    fs::remove_file(&key).unwrap();
    f.keeps();
}
