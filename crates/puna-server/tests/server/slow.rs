//! Clients that take their time, on a port: they are let go, and nobody else waits for them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use puna_server::{Patience, bind, run};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::common::{Options, config_with};

/// What a client takes to do what it is meant to, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

/// Four times as many wait.
const MAX_CONCURRENT: usize = 4;

/// A server on a port of its own, which ends with the tests.
fn on_a_port(patience: Patience) -> SocketAddr {
    let options = Options { max_concurrent: MAX_CONCURRENT, patience, ..Options::default() };
    let (config, _) = config_with(&options);
    let listener = bind(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || run(config, listener, None, || {}).unwrap());
    address
}

fn request(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// All that comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is cut off is closed too.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("it is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn is_answered(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = json!({ "prompt": "Once", "max_tokens": 2 }).to_string();
    stream.write_all(request("/v1/completions", &body).as_bytes()).await.unwrap();
    let reply = rest(stream).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[tokio::test]
async fn slow_senders_are_let_go_and_hold_nobody_up() {
    let (head, body) = (Duration::from_millis(300), Duration::from_millis(600));
    let address = on_a_port(Patience { head, body, ..Patience::default() });
    let whole = request("/v1/completions", &json!({ "prompt": "Once" }).to_string());
    let (in_head, in_body) = (30, whole.len() - 3);
    // Nothing; a part of the head; the head and a part of the body.
    for (n_sent, status) in [(0, ""), (in_head, ""), (in_body, "HTTP/1.1 408")] {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(&whole.as_bytes()[..n_sent]).await.unwrap();
        is_answered(address).await;
        let start = Instant::now();
        let reply = rest(slow).await;
        assert!(reply.starts_with(status), "{n_sent} bytes: {reply}");
        assert!(
            status.is_empty() == reply.is_empty() || reply.starts_with("HTTP/1.1 408"),
            "{reply}"
        );
        assert!(start.elapsed() < LONG / 2, "{n_sent} bytes");
    }
    // A byte now and then is no excuse.
    let mut slow = TcpStream::connect(address).await.unwrap();
    for byte in whole.as_bytes() {
        if slow.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(!rest(slow).await.starts_with("HTTP/1.1 200"));
    is_answered(address).await;
}

#[tokio::test]
async fn slow_readers_are_let_go_and_free_their_places() {
    let stall = Duration::from_millis(500);
    let address = on_a_port(Patience { stall, ..Patience::default() });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut reader = socket.connect(address).await.unwrap();
    // All the places, and more text than the buffers between the two hold.
    let body = json!({
        "messages": [{ "role": "user", "content": "Once" }], "max_tokens": 480, "ignore_eos": true,
        "n": 5 * MAX_CONCURRENT, "logprobs": true, "top_logprobs": 20, "stream": true,
    });
    reader.write_all(request("/v1/chat/completions", &body.to_string()).as_bytes()).await.unwrap();
    let mut first = [0; 12];
    reader.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // While it stalls nobody else finds a place, and then somebody does.
    let start = Instant::now();
    loop {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = json!({ "prompt": "Once", "max_tokens": 2 }).to_string();
        stream.write_all(request("/v1/completions", &body).as_bytes()).await.unwrap();
        let reply = rest(stream).await;
        if reply.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(reply.starts_with("HTTP/1.1 429"), "{reply}");
        assert!(start.elapsed() < LONG, "its places are still taken");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() > stall / 2, "it was let go before its time");
    assert!(!rest(reader).await.contains("[DONE]"));
}
