//! `fieldkeep dev`: a complete service in one command.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use fieldkeep_harness::{Home, binary};
use rustix::process::{Pid, Signal, kill_process};

/// Environment variables.
type Variables = HashMap<String, String>;

/// A running `fieldkeep dev` on free ports. Dropped, it is killed.
pub(crate) struct Dev {
    child: Child,
    /// What it printed.
    pub(crate) said: String,
    /// The variables of an application, and of the admin.
    pub(crate) app: Variables,
    pub(crate) admin: Variables,
}

impl Dev {
    pub(crate) fn start(work: &Path, arguments: &[&str]) -> Dev {
        let mut child = command(arguments)
            .current_dir(work)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        while !said.ends_with("# Ctrl-C here stops it.\n") {
            assert_ne!(output.read_line(&mut said).unwrap(), 0, "{said}");
        }
        let blocks: Vec<Variables> = said.split("\n\n").filter_map(exports).collect();
        let [app, admin] = blocks.try_into().unwrap();
        Dev {
            child,
            said,
            app,
            admin,
        }
    }

    /// Ctrl-C. Asserts that it ends well.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables that a block of lines exports, as a shell reads them; none if it exports nothing.
fn exports(block: &str) -> Option<Variables> {
    let lines = block
        .lines()
        .filter_map(|line| line.strip_prefix("export "));
    let variables: Variables = lines
        .map(|line| line.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (!variables.is_empty()).then_some(variables)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("dev").args(arguments).stdin(Stdio::null());
    command
}

fn run(variables: &Variables, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .envs(variables)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

const FIELD: [&str; 4] = ["--field", "customer.email", "--context", "id=42"];

/// A port that is free with the two after it, below those that the system gives out by itself.
fn three_free_ports() -> String {
    let begin = 20_000 + u16::try_from(std::process::id() % 3_000).unwrap() * 3;
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut ports = (begin..begin + 999).step_by(3);
    let first = ports.find(|first| (*first..first + 3).all(is_free));
    first.unwrap().to_string()
}

#[test]
fn an_identity_is_told_the_address_of_its_listener() {
    let work = tempfile::tempdir().unwrap();
    let issue = |dev: &Dev, name: &str, more: &[&str]| {
        let out = work.path().join(name).display().to_string();
        let arguments = ["cert", "issue", name, "--out", &out];
        text(&run(&dev.admin, &[&arguments[..], more].concat()))
    };
    let told = |said: &str| exports(said).unwrap()["FIELDKEEP_ADDR"].clone();
    const ADMIN_LISTENER: &str = "# That is the admin listener.";

    let dev = Dev::start(work.path(), &["--port", &three_free_ports()]);
    let (data, admin) = (&dev.app["FIELDKEEP_ADDR"], &dev.admin["FIELDKEEP_ADDR"]);
    let app = issue(&dev, "app", &["--grant", "data"]);
    assert_eq!((&told(&app), app.contains(ADMIN_LISTENER)), (data, false));
    let ada = issue(&dev, "ada", &["--grant", "admin", "--all-tenants"]);
    assert_eq!((&told(&ada), ada.contains(ADMIN_LISTENER)), (admin, false));
    let object = issue(&dev, "app-2", &["--grant", "data", "--format", "json"]);
    assert!(
        object.contains(&format!("\"address\": \"{data}\"")),
        "{object}"
    );
    dev.stop();

    // Where the data listener is elsewhere, it is not guessed.
    let dev = Dev::start(work.path(), &["--port", "0"]);
    let port = |address: &str| -> u16 { address.rsplit(':').next().unwrap().parse().unwrap() };
    let (data, admin) = (&dev.app["FIELDKEEP_ADDR"], &dev.admin["FIELDKEEP_ADDR"]);
    if port(admin) != port(data) + 1 {
        let app = issue(&dev, "app-3", &["--grant", "data"]);
        assert_eq!((&told(&app), app.contains(ADMIN_LISTENER)), (admin, true));
    }
    dev.stop();
}

#[test]
fn its_lines_make_an_application_and_an_admin_and_nothing_stays() {
    let work = tempfile::tempdir().unwrap();
    let dev = Dev::start(work.path(), &["--port", "0", "--env-file", ".env"]);
    let encrypt = [&["encrypt", "ada@example.com", "--key", "pii"][..], &FIELD].concat();
    let sealed = text(&run(&dev.app, &encrypt));
    let decrypt = [&["decrypt", sealed.trim()][..], &FIELD].concat();
    assert_eq!(text(&run(&dev.app, &decrypt)), "ada@example.com");
    assert_eq!(
        run(&dev.admin, &decrypt).status.code(),
        Some(3),
        "an admin never sees plaintext"
    );
    text(&run(&dev.admin, &["key", "rotate", "pii"]));
    let refused = run(&dev.app, &["key", "rotate", "pii"]);
    assert!(!refused.status.success(), "an application manages nothing");

    let file = fs::read_to_string(work.path().join(".env")).unwrap();
    assert_eq!(exports(&file).as_ref(), Some(&dev.app));
    let folder = Path::new(&dev.app["FIELDKEEP_CA"])
        .ancestors()
        .nth(3)
        .unwrap()
        .to_owned();
    assert!(folder.is_dir());
    dev.stop();
    assert!(!folder.exists(), "the temporary directory stays");
    assert_eq!(
        work.path().read_dir().unwrap().count(),
        0,
        "a file stays that names what is gone"
    );
}

#[test]
fn a_directory_is_used_again_and_by_one_at_a_time() {
    let work = tempfile::tempdir().unwrap();
    let arguments = ["--dir", "fk", "--port", "0"];
    let dev = Dev::start(work.path(), &arguments);
    let sealed = text(&run(
        &dev.app,
        &[&["encrypt", "x", "--key", "pii"][..], &FIELD].concat(),
    ));
    let second = command(&arguments).current_dir(&work).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(7), "{said}");
    assert!(
        said.contains("error: another process runs a service on `fk`"),
        "{said}"
    );
    dev.stop();

    let dev = Dev::start(work.path(), &arguments);
    assert!(dev.said.contains("stays for the next time"), "{}", dev.said);
    let opened = run(
        &dev.app,
        &[&["decrypt", sealed.trim()][..], &FIELD].concat(),
    );
    assert_eq!(text(&opened), "x");
    let script = ". fk/admin.env && exec \"$0\" key list";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(binary())
        .current_dir(&work)
        .output()
        .unwrap();
    assert!(text(&output).contains("pii"));
    dev.stop();
}

#[test]
fn a_directory_that_may_matter_is_not_touched() {
    let home = Home::make();
    let before = fs::read_dir(home.path().join("identities"))
        .unwrap()
        .count();
    let path = home.path();
    let refused = command(&["--port", "0", "--dir", path.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(7), "{said}");
    assert!(said.contains("was not made by `fieldkeep dev`"), "{said}");
    assert_eq!(
        fs::read_dir(home.path().join("identities"))
            .unwrap()
            .count(),
        before
    );
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    // The last two ports have no room for the others; a free port is rarely one of them.
    let port = taken.local_addr().unwrap().port().min(65_533).to_string();
    let refused = command(&["--port", &port]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(7), "{said}");
    let expected = format!("error: `127.0.0.1:{port}` is in use by another program\n");
    assert!(
        said.contains(&expected) && said.contains("`--port 0` takes free ones"),
        "{said}"
    );
}
