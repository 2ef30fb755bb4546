use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::Pool;

/// Runs one operation and checks that every task was called exactly once.
fn check(pool: &Pool, n_tasks: usize) {
    let calls: Vec<AtomicUsize> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
    pool.run(n_tasks, &|i| {
        calls[i].fetch_add(1, Ordering::Relaxed);
    });
    for (i, n) in calls.iter().enumerate() {
        assert_eq!(n.load(Ordering::Relaxed), 1, "task {i} of {n_tasks} on {pool:?}");
    }
}

#[test]
fn every_task_is_called_once() {
    for n_threads in [0, 1, 2, 7] {
        let pool = Pool::new(n_threads);
        assert_eq!(pool.n_threads(), n_threads.max(1));
        for n_tasks in [0, 1, 2, 3, 6, 7, 8, 1000] {
            check(&pool, n_tasks);
        }
    }
}

#[test]
fn operations_follow_each_other_without_mixing() {
    for n_threads in [2, 7] {
        let pool = Pool::new(n_threads);
        for round in 0..5_000 {
            check(&pool, 2 + round % 9);
        }
    }
}

#[test]
fn what_tasks_write_is_seen_by_the_next_operation() {
    let pool = Pool::new(3);
    let mut values = vec![0u64; 64];
    for round in 0..2_000 {
        pool.run_chunks(&mut values, 7, &|_, chunk| {
            for value in chunk {
                assert_eq!(*value, round);
                *value += 1;
            }
        });
    }
    assert_eq!(values, [2_000; 64]);
}

#[test]
fn slices_are_cut_side_by_side() {
    let pool = Pool::new(3);
    let (mut a, mut b) = ([0; 10], [0; 19]);
    pool.run_zip([(&mut a, 2), (&mut b, 4)], &|i, [a, b]| {
        a.fill(i);
        b.fill(10 * i);
    });
    assert_eq!(a, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!((b[3], b[4], b[15], b[16], b[18]), (0, 10, 30, 40, 40));
}

#[test]
#[should_panic(expected = "chunks of every slice")]
fn slices_of_different_numbers_of_chunks_are_refused() {
    Pool::new(2).run_zip([(&mut [0; 4], 2), (&mut [0; 5], 2)], &|_, _| {});
}

#[test]
fn sleeping_threads_wake_up() {
    let pool = Pool::new(4);
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(20));
        check(&pool, 50);
    }
}

#[test]
fn the_caller_sleeps_through_a_long_task() {
    let pool = Pool::new(2);
    let main = thread::current().id();
    // Each thread takes one of the two tasks: whichever runs on the worker is the long one.
    pool.run(2, &|_| {
        thread::sleep(Duration::from_millis(if thread::current().id() == main { 5 } else { 60 }));
    });
    check(&pool, 10);
}

#[test]
fn an_operation_within_a_task_runs_on_its_thread() {
    let pool = Pool::new(3);
    let total = AtomicUsize::new(0);
    pool.run(10, &|_| {
        let outer = thread::current().id();
        pool.run(10, &|_| {
            assert_eq!(thread::current().id(), outer);
            total.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(total.into_inner(), 100);
}

#[test]
fn several_threads_may_share_a_pool() {
    let pool = Pool::new(3);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|round| check(&pool, 1 + round % 12)));
        }
    });
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_survives() {
    for n_threads in [1, 2, 7] {
        let pool = Pool::new(n_threads);
        for culprit in [0, 5, 19] {
            let finished = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(20, &|i| {
                    assert_ne!(i, culprit, "culprit");
                    finished.fetch_add(1, Ordering::Relaxed);
                });
            }));
            let message = *result.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains("culprit"), "{message}");
            if n_threads > 1 {
                assert_eq!(finished.into_inner(), 19);
            }
            check(&pool, 20);
        }
    }
}

#[test]
fn pools_come_and_go() {
    for round in 0..200 {
        let pool = Pool::new(1 + round % 7);
        check(&pool, round % 5);
    }
}
