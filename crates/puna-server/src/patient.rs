//! How long the server waits for slow clients, and a connection that does not wait for ever for one that has stopped
//! reading.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// One that does not get its request's head across in this time is let go.
    pub head: Duration,
    /// A body that takes longer is not waited for.
    pub body: Duration,
    /// One that takes nothing of its answer for so long is let go, and with it what it asked for.
    pub stall: Duration,
}

impl Default for Patience {
    /// 15, 30 and 60 seconds.
    fn default() -> Self {
        let [head, body, stall] = [15, 30, 60].map(Duration::from_secs);
        Self { head, body, stall }
    }
}

/// Wraps each connection; its writes may make no progress for so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaxStall(pub(crate) Duration);

impl<I, S> Accept<I, S> for MaxStall {
    type Stream = Patient<I>;
    type Service = S;
    type Future = Ready<io::Result<(Patient<I>, S)>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        ready(Ok((Patient { stream, max_stall: self.0, stall: None }, service)))
    }
}

/// A stream whose writes fail when they make no progress.
#[derive(Debug)]
pub(crate) struct Patient<I> {
    stream: I,
    max_stall: Duration,
    /// Runs while a write waits.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<I> Patient<I> {
    /// What a write came to, if it did; else whether it has waited too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stall = None;
            return poll;
        }
        let max_stall = self.max_stall;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(max_stall)));
        match stall.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client reads nothing",
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.judge(cx, poll)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_flush(cx);
        this.judge(cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.judge(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn writes_go_on_while_somebody_reads_and_fail_when_nobody_does() {
        let (stream, mut reader) = duplex(10);
        let max_stall = Duration::from_millis(50);
        let mut patient = Patient { stream, max_stall, stall: None };
        let reading = async {
            let mut bytes = [0; 10];
            for _ in 0..10 {
                sleep(Duration::from_millis(20)).await;
                reader.read_exact(&mut bytes).await.unwrap();
            }
        };
        // Ten times 20 ms: longer than the longest stall, but without one.
        let (written, ()) = tokio::join!(patient.write_all(&[7; 100]), reading);
        written.unwrap();
        let error = patient.write_all(&[7; 11]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
