//! One shell for all commands: folders that were changed to and variables that were set stay.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use andon_tests::PATIENCE;

/// Comes after what a command has said, with its exit code.
const MARK: &str = "@@@ ended with ";

/// Ends with its value, and whatever it runs with it.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    said: Receiver<String>,
}

impl Shell {
    /// In a home of its own, with the command on its path and a name for git.
    pub(crate) fn start(home: &Path, andon: &Path) -> Self {
        let bin = home.join("bin");
        std::fs::create_dir(&bin).expect("a folder");
        std::os::unix::fs::symlink(andon, bin.join("andon")).expect("a link");
        let path = std::env::var("PATH").expect("there is a path");
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(home).env("HOME", home);
        command.env("PATH", format!("{}:{path}", bin.display()));
        for name in
            ["ANDON_STATE", "ANDON_COORDINATOR", "ANDON_TOKEN", "ANDON_STORE", "XDG_STATE_HOME", "GIT_DIR"]
        {
            command.env_remove(name);
        }
        for name in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{name}_NAME"), "Tests");
            command.env(format!("GIT_{name}_EMAIL"), "tests@andon.invalid");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash starts");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(b"exec 2>&1\n").expect("bash reads");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (lines, said) = channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, input, said }
    }

    /// Runs one to its end: its exit code, and what it said.
    pub(crate) fn run(&mut self, command: &str) -> (i32, String) {
        // The code stays what it was, for a command that asks for it. Nothing but bash reads what comes on its input.
        let text = format!(
            "{{\n(exit ${{andon_code:-0}})\n{command}\n}} </dev/null\nandon_code=$?\nprintf '\\n{MARK}%d\\n' $andon_code\n"
        );
        self.input.write_all(text.as_bytes()).expect("bash reads");
        let mut said = String::new();
        loop {
            let line = self.said.recv_timeout(PATIENCE);
            let line =
                line.unwrap_or_else(|error| panic!("`{command}` ({error}) has said until now:\n{said}"));
            if let Some(code) = line.strip_prefix(MARK) {
                return (code.trim().parse().expect("a number"), said);
            }
            said.push_str(&line);
            said.push('\n');
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
