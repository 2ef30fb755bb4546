//! Sequences: a function of seed and index alone; every epoch gives every token; held-out windows add up.

mod common;

use common::{Desk, RIGHTS, as_text, config, ids, stories};
use puna_data::{Corpus, Place};

const WEIGHTS: [u64; 3] = [5, 3, 1];

/// Three sources of different sizes, one of them smaller than a sequence.
fn three(desk: &Desk) -> Corpus {
    let mut text = "seed = 1\nshard_tokens = 777\n[held_out]\nfraction = 0.1\n".to_owned();
    for (i, n) in [40, 90, 1].into_iter().enumerate() {
        desk.write(&format!("{i}.txt"), as_text(&stories(n, i as u64)));
        let weight = WEIGHTS[i];
        text.push_str(&format!(
            "[[source]]\nname = \"s{i}\"\npaths = [\"{i}.txt\"]\nformat = \"text\"\nmarker = \"<|end|>\"\n\
             weight = {weight}\n{RIGHTS}\n"
        ));
    }
    desk.build("out", &text).unwrap();
    desk.open("out")
}

#[test]
fn every_epoch_gives_every_token() {
    let desk = Desk::new();
    let corpus = three(&desk);
    for seq_len in [1000, 64] {
        let training = corpus.training(seq_len, 7);
        let mut given: Vec<Vec<(Place, Vec<u32>)>> = vec![Vec::new(); 3];
        let n_two_epochs = 2 * 9 * (0..3).map(|s| training.n_windows(s)).max().unwrap();
        for index in 0..n_two_epochs {
            let place = training.place(index);
            let sequence = training.sequence(index).unwrap();
            assert_eq!(sequence.tokens.len(), seq_len + 1);
            check_starts(&sequence.tokens, &sequence.document_starts);
            given[place.source].push((place, sequence.tokens));
        }
        for (source, given) in given.iter().enumerate() {
            let all = ids(corpus.folder(), "train", &format!("s{source}"));
            for epoch in 0..2 {
                let windows: Vec<_> = given.iter().filter(|(p, _)| p.epoch == epoch).collect();
                assert_eq!(windows.len() as u64, training.n_windows(source));
                // As a ring of tokens, each with those around it.
                let mut covered = vec![false; all.len()];
                let mut starts = Vec::new();
                for (_, window) in windows {
                    let at = find(&all, window).expect("a window is a stretch of the source");
                    (0..seq_len).for_each(|i| covered[(at + i) % all.len()] = true);
                    starts.push(at);
                }
                assert!(covered.iter().all(|&is| is), "source {source}, epoch {epoch}");
                assert!(starts.len() < 4 || !starts.is_sorted(), "the order is shuffled");
            }
        }
        assert_ne!(given[1][0].1, corpus.training(seq_len, 8).sequence(1).unwrap().tokens);
    }
}

/// Where `window` stands in the ring `all`.
fn find(all: &[u32], window: &[u32]) -> Option<usize> {
    (0..all.len()).find(|&at| (0..window.len()).all(|i| all[(at + i) % all.len()] == window[i]))
}

fn check_starts(tokens: &[u32], starts: &[u32]) {
    assert_eq!(tokens.len(), starts.len());
    for (i, &start) in starts.iter().enumerate() {
        let start = start as usize;
        assert!(start == 0 || tokens[start] == 1, "a document begins with BOS");
        assert!(tokens[start + 1..=i.max(start)].iter().all(|&id| id != 1), "and has no other");
    }
}

#[test]
fn a_sequence_depends_on_nothing_before_it() {
    let desk = Desk::new();
    let corpus = three(&desk);
    let training = corpus.training(128, 3);
    let forward: Vec<_> = (0..60).map(|i| training.sequence(i).unwrap()).collect();
    let again = desk.open("out");
    let again = again.training(128, 3);
    for index in (0..60).rev() {
        assert_eq!(again.sequence(index).unwrap(), forward[index as usize]);
    }
    let mut counts = [0u64; 3];
    for index in 0..900 {
        counts[training.place(index).source] += 1;
    }
    assert_eq!(counts, WEIGHTS.map(|weight| weight * 100));
    assert!(training.sequence(u64::MAX / 2).is_ok());
}

#[test]
fn held_out_windows_add_up() {
    let desk = Desk::new();
    let corpus = three(&desk);
    for (source, seq_len) in [(0, 100), (1, 33), (1, 100_000)] {
        let split = &corpus.manifest().sources[source].held_out;
        assert!(split.documents > 0);
        let windows = corpus.held_out(source, seq_len);
        let (mut n_targets, mut n_bytes) = (0, 0);
        for index in 0..windows.len() {
            let window = windows.window(index).unwrap();
            check_starts(&window.sequence.tokens, &window.sequence.document_starts);
            n_targets += window.sequence.tokens.len() as u64 - 1;
            n_bytes += window.n_bytes;
        }
        assert_eq!((n_targets, n_bytes), (split.tokens - 1, split.bytes));
        assert_eq!(corpus.held_out(source, split.tokens as usize - 1).len(), 1);
        assert_eq!(corpus.held_out(source, split.tokens as usize - 2).len(), 2);
    }
    desk.write("x.txt", "One.");
    desk.build("one", &config("[held_out]\nfraction = 0", "x.txt", "")).unwrap();
    assert!(desk.open("one").held_out(0, 8).is_empty());
}
