//! Running a command as one named, timed step.

use std::{env, fmt, process::Command, time::Instant};

/// Why a step stopped.
#[derive(Debug)]
pub(crate) struct Failed(String);

impl Failed {
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs `body` under a heading and prints how long it took.
pub(crate) fn step(name: &str, body: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    println!("=== {name}");
    let started = Instant::now();
    body().map_err(|failed| Failed::new(format!("{name}: {failed}")))?;
    println!("=== {name}: ok, {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// A command that is printed when it fails.
pub(crate) struct Run(Command);

/// The cargo that runs this xtask.
pub(crate) fn cargo(arguments: &[&str]) -> Run {
    let program = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    program_with(&program, arguments)
}

/// Any program.
pub(crate) fn program_with(program: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(program);
    command.args(arguments);
    Run(command)
}

impl Run {
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.0.arg(argument);
        self
    }

    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn directory(mut self, directory: &str) -> Self {
        self.0.current_dir(directory);
        self
    }

    /// Runs it without showing what it prints, unless it fails.
    pub(crate) fn run_quietly(mut self) -> Result<(), Failed> {
        let output = self
            .0
            .output()
            .map_err(|error| Failed::new(format!("`{:?}` did not start: {error}", self.0)))?;
        if output.status.success() {
            return Ok(());
        }
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        Err(Failed::new(format!(
            "`{:?}` ended with {}",
            self.0, output.status
        )))
    }

    pub(crate) fn run(mut self) -> Result<(), Failed> {
        let status = self
            .0
            .status()
            .map_err(|error| Failed::new(format!("`{:?}` did not start: {error}", self.0)))?;
        if status.success() {
            Ok(())
        } else {
            Err(Failed::new(format!("`{:?}` ended with {status}", self.0)))
        }
    }
}
