//! Runs the program as a user would.

#![allow(dead_code, unreachable_pub, reason = "shared by several test programs, each using a part")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// What a run left behind.
pub struct Run {
    pub args: Vec<String>,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program, not started yet; width and colours of the terminal do not count.
pub fn puna(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_puna"));
    command.args(args).env("COLUMNS", "100").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs to the end without input.
pub fn run(args: &[&str]) -> Run {
    run_command(args, puna(args))
}

/// Runs `command`, which is the program with `args`, to the end.
pub fn run_command(args: &[&str], mut command: Command) -> Run {
    finish(args, command.output().expect("the program starts"))
}

/// Runs to the end with `input` on stdin.
pub fn run_with_input(args: &[&str], input: &str) -> Run {
    let mut command = puna(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("stdin is a pipe").write_all(input.as_bytes()).expect("it reads");
    finish(args, child.wait_with_output().expect("it ends"))
}

fn finish(args: &[&str], output: Output) -> Run {
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    let args = args.iter().map(ToString::to_string).collect();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Run { args, code: output.status.code(), stdout, stderr }
}

impl Run {
    /// Exit code, and parts that stderr must contain. Stdout must be empty unless the run succeeded.
    #[track_caller]
    pub fn expect(&self, code: i32, stderr_parts: &[&str]) -> &Self {
        let told =
            format!("puna {:?}\nstdout: {}\nstderr: {}", self.args, self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{told}");
        for part in stderr_parts {
            assert!(self.stderr.contains(part), "stderr lacks {part:?}: {told}");
        }
        assert!(!self.stderr.contains("panicked"), "{told}");
        assert!(code == 0 || self.stdout.is_empty(), "a failed run wrote to stdout: {told}");
        self
    }
}
