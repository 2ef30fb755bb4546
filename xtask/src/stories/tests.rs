//! Do the judges deserve trust? Hand-labelled cases, half of them made to fool; human stories; answers to other prompts.
#![expect(clippy::print_stdout, reason = "what is measured is told with --nocapture")]

use serde_json::Value;

use super::answers::Record;
use super::corpus::{Stories, tokenizer};
use super::judge_a::JudgeA;
use super::judge_b::{Asked, Bayes, JudgeB, parse, replies, share_of_deflate};
use super::prepare::{held_out, prompts};
use super::read_off::ReadOff;
use super::request::{Expected, Kind, Random, Request};
use super::requests::Tables;

fn cases() -> Vec<(Record, bool, String)> {
    let lines = include_str!("cases.jsonl").lines();
    let parse = |line| {
        let value: Value = serde_json::from_str(line).unwrap();
        let (met, why) = (value["met"].as_bool().unwrap(), value["why"].to_string());
        (serde_json::from_value(value).unwrap(), met, why)
    };
    lines.map(parse).collect()
}

/// The share of cases in which a judge says what the label says; the others are printed.
fn accuracy(name: &str, judge: impl Fn(&Record) -> (bool, String)) -> f64 {
    let cases = cases();
    let mut right = 0;
    for (record, met, why) in &cases {
        let (found, detail) = judge(record);
        if found == *met {
            right += 1;
        } else {
            println!("{name} says {found}: {} {why} {detail}", record.text());
        }
    }
    right as f64 / cases.len() as f64
}

#[test]
fn judge_a_is_right_on_hand_labelled_cases() {
    let judge = JudgeA::new();
    let accuracy = accuracy("A", |record| {
        let answer = &record.answers[0];
        let verdict = judge.judge(&record.request, record.text(), &answer.text, answer.complete);
        (verdict.met(), format!("{verdict:?}"))
    });
    println!("A: {accuracy:.3}");
    assert!(accuracy >= 0.95, "{accuracy}");
}

#[test]
fn judge_b_is_right_on_hand_labelled_cases() {
    let judge = JudgeB::new();
    let accuracy = accuracy("B", |record| {
        let answer = &record.answers[0];
        let expected = record.request.kind.expected();
        let verdict = judge.judge(record.text(), expected, &answer.text, answer.complete);
        (verdict.met(), format!("{verdict:?}"))
    });
    println!("B: {accuracy:.3}");
    assert!(accuracy >= 0.9, "{accuracy}");
}

/// Each reply told by naive Bayes that has learned all others.
#[test]
fn replies_are_told_apart_by_the_others() {
    let replies = replies();
    let is_right = |i: usize| {
        let mut others = replies.clone();
        let (class, words) = others.remove(i);
        Bayes::new(&others).class(&words) == class
    };
    let right = (0..replies.len()).filter(|&i| is_right(i)).count() as f64 / replies.len() as f64;
    println!("leave one out: {right:.3} of {}", replies.len());
    assert!(right >= 0.8, "{right}");
}

/// What B reads out of a prompt is what the specification says, for every prompt that there is.
#[test]
fn the_wording_asks_for_what_the_specification_says() {
    let tables = Tables::new();
    let held_out = held_out(&tables);
    assert_eq!(held_out.len(), 750);
    for prompt in held_out.iter().chain(&prompts(&tables, &Default::default())) {
        let request = prompt.request.clone();
        if request.kind.expected() == Expected::Story {
            let Request { topic, name, words, opening, happy, short, .. } = request;
            let expected = Asked { topic, name, words, opening, happy, short };
            assert_eq!(parse(&prompt.text).as_ref(), Some(&expected), "{}", prompt.text);
        }
    }
}

/// No held-out prompt, topic, name, word or phrasing is among those for training.
#[test]
fn held_out_prompts_are_apart() {
    let tables = Tables::new();
    let (held_out, train) = (held_out(&tables), prompts(&tables, &Default::default()));
    assert!(train.len() >= 6_200, "{}", train.len());
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Question) {
        let texts: Vec<_> =
            train.iter().filter(|p| p.request.kind == kind).map(|p| &p.text).collect();
        assert!(!texts.is_empty());
        assert!(
            held_out.iter().filter(|p| p.request.kind == kind).all(|p| !texts.contains(&&p.text)),
            "{kind:?}"
        );
    }
    let frame =
        |p: &super::requests::Prompt| p.text.split([' ']).take(3).collect::<Vec<_>>().join(" ");
    let frames: Vec<_> =
        train.iter().filter(|p| p.request.kind == Kind::Topic).map(frame).collect();
    assert!(
        held_out
            .iter()
            .filter(|p| p.request.kind == Kind::Topic)
            .all(|p| !frames.contains(&frame(p)))
    );
    for prompt in held_out.iter().filter(|p| p.request.unseen && p.request.kind != Kind::Borderline)
    {
        let request = &prompt.request;
        for other in train.iter().map(|p| &p.request).filter(|other| other.kind != Kind::Borderline)
        {
            let is_child = matches!(
                request.topic.as_deref(),
                Some("girl" | "boy" | "dog" | "cat" | "bear" | "puppy")
            );
            assert!(
                request.topic.is_none() || is_child || request.topic != other.topic,
                "{}",
                prompt.text
            );
            assert!(request.name.is_none() || request.name != other.name, "{}", prompt.text);
            assert!(
                request.words.iter().all(|word| !other.words.contains(word)),
                "{}",
                prompt.text
            );
        }
    }
}

/// Judges on what people wrote: requests read off held-out stories are met by them, and not by other stories.
#[test]
fn human_stories_are_met_and_others_are_not() {
    let Some(data) = puna_testkit::shared_data() else { return };
    let stories = Stories::read(&data.join("text"), &tokenizer().unwrap()).unwrap();
    let (tables, a, b) = (Tables::new(), JudgeA::new(), JudgeB::new());
    let read_off = ReadOff::new(&tables, &stories.train);
    let mut random = Random::new(5);
    // Held-out stories are few: some that are trained on, but that no judge has seen, stand beside them.
    let human: Vec<_> = stories.held_out.iter().chain(stories.train.iter().step_by(5)).collect();
    let human: Vec<_> =
        human.into_iter().filter(|story| (40..=220).contains(&story.split(' ').count())).collect();
    let mut pairs = Vec::new();
    for story in &human {
        let mut requests = read_off.requests(story);
        random.shuffle(&mut requests);
        pairs.extend(requests.into_iter().take(2).map(|request| (request, *story)));
    }
    let n = pairs.len();
    let (mut own, mut other, mut asked) = ([0.0; 2], [0.0; 2], 0.0);
    let mut failures = std::collections::BTreeMap::<&str, usize>::new();
    for (i, (request, story)) in pairs.iter().enumerate() {
        let prompt = tables.phrase(&mut random, request, None, false);
        for (story, met) in [(*story, &mut own), (pairs[(i + n / 2) % n].1, &mut other)] {
            let by_a = a.judge(request, &prompt, story, true);
            let by_b = b.judge(&prompt, Expected::Story, story, true);
            met[0] += f64::from(by_a.met()) / n as f64;
            met[1] += f64::from(by_b.met()) / n as f64;
            if story == pairs[i].1 {
                let failed = by_a
                    .form
                    .iter()
                    .map(|(name, met)| (*name, *met))
                    .chain(by_b.conditions.clone());
                for (name, _) in failed.filter(|(_, met)| !met) {
                    *failures.entry(name).or_default() += 1;
                }
            } else {
                asked += f64::from(by_a.asked.iter().all(|(_, met)| *met)) / n as f64;
            }
        }
    }
    println!(
        "{n} requests: own story A {:.3} B {:.3}; another A {:.3} B {:.3}, asked {asked:.3}",
        own[0], own[1], other[0], other[1]
    );
    println!("conditions that own stories fail: {failures:?}");
    let mut shares: Vec<(usize, f64)> =
        human.iter().map(|story| (story.len(), share_of_deflate(story))).collect();
    shares.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (low, high) in [(0, 400), (400, 600), (600, 900), (900, 1200), (1200, 4000)] {
        let of: Vec<f64> = shares
            .iter()
            .filter(|(n, _)| (low..high).contains(n))
            .map(|(_, share)| *share)
            .collect();
        if !of.is_empty() {
            println!(
                "deflate of {low} to {high} bytes: {} stories, first percentile {:.3}, least {:.3}",
                of.len(),
                of[of.len() / 100],
                of[0]
            );
        }
    }
    assert!(own[0] >= 0.9 && own[1] >= 0.9, "too strict: {own:?}");
    assert!(other[0] <= 0.05 && other[1] <= 0.05, "too lax: {other:?}");
}
