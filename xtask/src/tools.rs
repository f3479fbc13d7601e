//! Tools beyond a Rust toolchain and a C compiler: Debian packages and cargo subcommands.

use std::{env, fs, path::Path};

use crate::step::{Failed, cargo, program_with};

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
