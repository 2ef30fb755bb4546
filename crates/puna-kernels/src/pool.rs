//! Persistent threads that carry out one operation at a time, with one barrier at its end.
//!
//! An operation is `n_tasks` calls of one function. Its tasks are handed out one by one, so a thread that
//! is slow, or whose core was taken away, delays only the task it has. The caller takes part, and returns
//! when the last task is done; a thread that wakes late finds nothing left and touches nothing.
//!
//! Two counters make this work. `unclaimed` counts tasks down: whoever lowers it from `r` to `r − 1` owns
//! task `n_tasks − r`. `done` counts finished tasks up. The job itself (`Job`) is written only while
//! `unclaimed` is zero and all tasks are done, and is read only between claiming a task and counting it
//! done: so a reader and the writer never meet. A claim that compares equal by accident, with a count left
//! by an earlier operation, claims a task of the current one, and then reads the current job.
//!
//! Waiting, for work or for the last task: spin briefly, for the next operation usually follows within
//! microseconds; then yield, in case threads outnumber cores; then sleep.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::DisjointMut;

/// Rounds of spinning before the first yield: some ten microseconds.
const N_SPINS: usize = 300;
/// Yields before sleeping.
const N_YIELDS: usize = 60;

/// A function from task numbers, borrowed by an operation.
type Task<'a> = &'a (dyn Fn(usize) + Sync + 'a);

/// Threads that carry out operations together; dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Job {
    task: Task<'static>,
    n_tasks: usize,
}

struct Shared {
    /// An operation is under way.
    busy: AtomicBool,
    /// Tasks of the current operation that nobody owns yet.
    unclaimed: Padded<AtomicUsize>,
    /// Finished tasks of the current operation.
    done: Padded<AtomicUsize>,
    job: UnsafeCell<Job>,
    /// What the first panicking task of the current operation panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    closing: AtomicBool,
    work_posted: Event,
    all_done: Event,
}

// SAFETY: everything but `job` is Sync by itself; `job` is written and read at different times, as
// explained at the top of the file, and what it refers to is Sync.
unsafe impl Sync for Shared {}

/// Keeps a hot counter on cache lines of its own.
#[repr(align(128))]
struct Padded<T>(T);

impl Pool {
    /// A pool of `n_threads` threads, one of which is whoever calls [`Pool::run`]. Zero counts as one. More threads
    /// than cores are allowed. A thread that the system refuses is done without.
    #[must_use]
    pub fn new(n_threads: usize) -> Self {
        let shared = Arc::new(Shared {
            busy: AtomicBool::new(false),
            unclaimed: Padded(AtomicUsize::new(0)),
            done: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { task: &|_| (), n_tasks: 0 }),
            panic: Mutex::new(None),
            closing: AtomicBool::new(false),
            work_posted: Event::default(),
            all_done: Event::default(),
        });
        let spawn = |i| {
            let shared = Arc::clone(&shared);
            let builder = thread::Builder::new().name(format!("puna-{i}"));
            builder.spawn(move || shared.serve()).ok()
        };
        let workers = (1..n_threads).map_while(spawn).collect();
        Self { shared, workers }
    }

    /// Threads that carry out operations, the caller's included.
    #[must_use]
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(0)` to `task(n_tasks − 1)`, each once, in any order and on any thread of the pool, and
    /// returns when all are done; what they wrote is then visible to the caller.
    ///
    /// From inside a task, or while another thread is running an operation on this pool, the calls are
    /// made one after the other on the calling thread.
    ///
    /// # Panics
    /// When a task panics, with what it panicked with, once the others are done. The pool can be used again.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let alone = self.workers.is_empty() || n_tasks <= 1;
        if alone || self.shared.busy.swap(true, Ordering::Acquire) {
            return (0..n_tasks).for_each(task);
        }
        self.shared.post(n_tasks, task);
        self.shared.work();
        self.shared.all_done.wait_until(|| self.shared.done.0.load(Ordering::Acquire) == n_tasks);
        let panic = locked(&self.shared.panic).take();
        self.shared.busy.store(false, Ordering::Release);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Calls `task(i, chunk)` for every chunk of `chunk_len` elements of `slice` (the last may be shorter),
    /// as [`Pool::run`] does.
    ///
    /// # Panics
    /// When `chunk_len` is zero, or a task panics.
    pub fn run_chunks<T: Send>(
        &self,
        slice: &mut [T],
        chunk_len: usize,
        task: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        self.run_zip([(slice, chunk_len)], &|i, [chunk]| task(i, chunk));
    }

    /// Calls `task(i, chunks)` with the `i`-th chunk of every slice, each cut into chunks of its own length, as
    /// [`Pool::run`] does.
    ///
    /// # Panics
    /// When a length is zero, the slices have different numbers of chunks, or a task panics.
    pub fn run_zip<T: Send, const N: usize>(
        &self,
        slices: [(&mut [T], usize); N],
        task: &(dyn Fn(usize, [&mut [T]; N]) + Sync),
    ) {
        let slices = slices.map(|(slice, chunk_len)| (DisjointMut::new(slice), chunk_len));
        let n_chunks =
            |(slice, chunk_len): &(DisjointMut<'_, T>, usize)| slice.len().div_ceil(*chunk_len);
        let n_tasks = slices.first().map_or(0, n_chunks);
        assert!(slices.iter().all(|slice| n_chunks(slice) == n_tasks), "chunks of every slice");
        self.run(n_tasks, &|i| {
            let chunks = slices.each_ref().map(|(slice, chunk_len)| {
                let start = i * chunk_len;
                // SAFETY: each task number is called once, and chunks of different numbers are disjoint.
                unsafe { slice.part(start..slice.len().min(start + chunk_len)) }
            });
            task(i, chunks);
        });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("n_threads", &self.n_threads()).finish()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.work_posted.notify();
        for worker in self.workers.drain(..) {
            // A worker catches what its tasks panic with, so there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Publishes an operation.
    fn post(&self, n_tasks: usize, task: Task<'_>) {
        // SAFETY: only the lifetime changes. `run` does not return before every task is done, and the
        // reference is not used after that.
        let task = unsafe { std::mem::transmute::<Task<'_>, Task<'static>>(task) };
        // SAFETY: `busy` admits one writer, and no task is unclaimed or unfinished, so nobody reads.
        unsafe { *self.job.get() = Job { task, n_tasks } };
        self.done.0.store(0, Ordering::Relaxed);
        self.unclaimed.0.store(n_tasks, Ordering::Release);
        self.work_posted.notify();
    }

    /// Carries out tasks until none is unclaimed.
    fn work(&self) {
        while let Some(unclaimed) = self.claim() {
            // SAFETY: the claimed task is not done, so nobody writes; `claim` acquired what `post` wrote.
            let job = unsafe { &*self.job.get() };
            let (task, n_tasks) = (job.task, job.n_tasks);
            let result = catch_unwind(AssertUnwindSafe(|| task(n_tasks - unclaimed)));
            if let Err(payload) = result {
                locked(&self.panic).get_or_insert(payload);
            }
            if self.done.0.fetch_add(1, Ordering::AcqRel) + 1 == n_tasks {
                self.all_done.notify();
            }
        }
    }

    /// Takes one task; returns how many were unclaimed before, or `None` when there was none.
    fn claim(&self) -> Option<usize> {
        let take = |n: usize| n.checked_sub(1);
        self.unclaimed.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).ok()
    }

    /// The life of a worker.
    fn serve(&self) {
        loop {
            self.work_posted.wait_until(|| {
                self.unclaimed.0.load(Ordering::Relaxed) > 0 || self.closing.load(Ordering::Relaxed)
            });
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            self.work();
        }
    }
}

/// Something to wait for that is recorded in atomics elsewhere.
#[derive(Default)]
struct Event {
    n_sleeping: AtomicUsize,
    mutex: Mutex<()>,
    condvar: Condvar,
}

impl Event {
    /// Waits until `happened` returns true: spins, yields, sleeps.
    fn wait_until(&self, happened: impl Fn() -> bool) {
        for _ in 0..N_SPINS {
            if happened() {
                return;
            }
            spin_loop();
        }
        for _ in 0..N_YIELDS {
            if happened() {
                return;
            }
            thread::yield_now();
        }
        let mut guard = locked(&self.mutex);
        self.n_sleeping.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence in `notify`: either this thread sees what happened, or the notifier sees
        // that it sleeps.
        fence(Ordering::SeqCst);
        while !happened() {
            guard = self.condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.n_sleeping.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes whoever sleeps, after what they wait for was recorded.
    fn notify(&self) {
        fence(Ordering::SeqCst);
        if self.n_sleeping.load(Ordering::Relaxed) > 0 {
            // A thread that counts as sleeping holds the mutex until it waits: after this, it waits.
            drop(locked(&self.mutex));
            self.condvar.notify_all();
        }
    }
}

/// Locks even after a panic elsewhere: what these mutexes guard is never left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
