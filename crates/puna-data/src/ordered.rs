//! Work on many threads whose results come in the order of the items.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Items under way for each thread: one in work, one waiting.
const PER_THREAD: usize = 2;

/// Takes items from `next` until there are none, gives each to `work` on one of `n_threads` threads, and each result
/// to `take` on this thread, in the items' order. At most twice as many items as threads exist at any time.
///
/// # Errors
/// The first of `next` or `take`.
pub(crate) fn in_order<I: Send, O: Send, E>(
    n_threads: usize,
    mut next: impl FnMut() -> Result<Option<I>, E>,
    work: impl Fn(I) -> O + Sync,
    mut take: impl FnMut(O) -> Result<(), E>,
) -> Result<(), E> {
    let n_threads = n_threads.max(1);
    let (jobs, queue) = sync_channel::<(I, SyncSender<O>)>(n_threads * PER_THREAD);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| serve(&queue, &work));
        }
        // Dropped on every way out of here, which ends the threads.
        let jobs = jobs;
        let mut under_way: VecDeque<Receiver<O>> = VecDeque::new();
        let mut is_end = false;
        loop {
            while !is_end && under_way.len() < n_threads * PER_THREAD {
                match next()? {
                    None => is_end = true,
                    Some(item) => {
                        let (result, done) = sync_channel(1);
                        jobs.send((item, result)).expect("the threads wait for work");
                        under_way.push_back(done);
                    }
                }
            }
            let Some(done) = under_way.pop_front() else { return Ok(()) };
            // A thread that panicked makes the scope panic with it.
            let Ok(result) = done.recv() else { return Ok(()) };
            take(result)?;
        }
    })
}

fn serve<I, O>(queue: &Mutex<Receiver<(I, SyncSender<O>)>>, work: &impl Fn(I) -> O) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((item, result)) = job else { return };
        // Nobody listens when the work was given up.
        let _ = result.send(work(item));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_keep_the_order() {
        for n_threads in [1, 2, 7] {
            let (mut n, mut found) = (0u64, Vec::new());
            let next = || {
                n += 1;
                Ok::<_, ()>((n <= 50).then_some(n))
            };
            let work = |n: u64| {
                thread::sleep(Duration::from_micros(n % 7 * 100));
                n * n
            };
            let take = |square| {
                found.push(square);
                Ok(())
            };
            in_order(n_threads, next, work, take).unwrap();
            assert_eq!(found, (1..=50).map(|n| n * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut n = 0;
        let next = || {
            n += 1;
            if n == 20 { Err("next") } else { Ok(Some(n)) }
        };
        assert_eq!(in_order(3, next, |n| n, |_| Ok(())), Err("next"));
        let refuse = |n| if n == 5 { Err("take") } else { Ok(()) };
        assert_eq!(in_order(3, || Ok(Some(5)), |n| n, refuse), Err("take"));
        assert_eq!(in_order(3, || Ok(None::<u8>), |n| n, |_| Err("never")), Ok(()));
    }
}
