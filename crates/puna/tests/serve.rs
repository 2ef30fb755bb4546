//! `puna serve` as a process: its address, its port, its end.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use common::{puna, run_command};

/// A server, and what it says on stderr.
struct Served {
    child: Child,
    /// `127.0.0.1:PORT`
    address: String,
    stderr: JoinHandle<String>,
}

fn serve(args: &[&str]) -> Served {
    let args = [&["serve", "stories260K", "--port", "0", "--threads", "1"], args].concat();
    let mut child = puna(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
    }
    let url = line.trim().strip_prefix("serving stories260K at ").unwrap();
    let address = url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    let stderr = std::thread::spawn(move || {
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        rest
    });
    Served { child, address, stderr }
}

impl Served {
    /// Sends a request whose response ends with the connection.
    fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let (host, length) = (&self.address, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stream
    }

    fn read(&self, method: &str, path: &str, more: &str, body: &str) -> String {
        let mut text = String::new();
        self.ask(method, path, more, body).read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until it has ended.
    fn wait(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, self.stderr.join().unwrap())
    }

    fn signal(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }
}

#[test]
#[cfg(unix)]
fn it_answers_and_ends_when_told() {
    let served = serve(&[]);
    let health = served.read("GET", "/health", "", "");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"), "{health}");
    let body = r#"{"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}"#;
    let reply = served.read("POST", "/v1/completions", "", body);
    assert!(reply.contains(r#""text":", there was"#), "{reply}");

    // The built-in model goes on with what was said.
    let body = r#"{"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 5, "temperature": 0}"#;
    let reply = served.read("POST", "/v1/chat/completions", "", body);
    assert!(reply.contains(r#""content":", there was"#), "{reply}");

    // What was begun is answered after the signal.
    let body = r#"{"prompt": "Once", "max_tokens": 300, "stream": true, "temperature": 0}"#;
    let mut stream = served.ask("POST", "/v1/completions", "", body);
    let mut first = [0; 200];
    stream.read_exact(&mut first).unwrap();
    served.signal();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "{rest}");
    let (code, stderr) = served.wait();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("\"path\":\"/v1/completions\"") && !stderr.contains("Once"),
        "{stderr}"
    );
}

#[test]
#[cfg(unix)]
fn a_port_in_use_suggests_another_and_keys_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.txt");
    fs::write(&keys, "a-key-of-ours\n").unwrap();
    let served = serve(&["--api-key-file", keys.to_str().unwrap()]);
    let port = served.address.rsplit(':').next().unwrap();
    let args = ["serve", "stories260K", "--port", port];
    run_command(&args, puna(&args)).expect(1, &["is in use; try --port"]);
    assert!(served.read("GET", "/v1/models", "", "").starts_with("HTTP/1.1 401"));
    let reply = served.read("GET", "/v1/models", "Authorization: Bearer a-key-of-ours\r\n", "");
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    served.signal();
    let (code, stderr) = served.wait();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("a-key-of-ours"), "{stderr}");
}

#[test]
fn what_cannot_be_served_is_told_before() {
    let missing = ["serve", "stories260K", "--port", "0", "--api-key-file", "no such file"];
    run_command(&missing, puna(&missing)).expect(1, &["no such file"]);
    let tls =
        ["serve", "stories260K", "--port", "0", "--tls-cert", "no cert", "--tls-key", "no key"];
    run_command(&tls, puna(&tls)).expect(1, &["no cert and no key"]);
    let cors = ["serve", "stories260K", "--port", "0", "--cors", "my page"];
    run_command(&cors, puna(&cors)).expect(2, &["--cors: expected scheme://host", "\"my page\""]);
    let twice = ["serve", "stories260K", "stories260K", "--port", "0"];
    run_command(&twice, puna(&twice)).expect(2, &["two models would be called stories260K"]);
    let args = ["serve", "--port", "0"];
    let mut command = puna(&args);
    command.env("PUNA_HOST", "nowhere");
    run_command(&args, command).expect(2, &["PUNA_HOST=nowhere"]);
}
