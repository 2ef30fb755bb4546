//! Stages after pre-training on the smallest model that comes along: they learn, they resume to the same bits, their
//! checkpoints open elsewhere, and they say what is wrong.

mod adapters;
mod desk;
mod golden;

use std::fs;
use std::path::Path;

use desk::{Desk, NOUNS, REWARD, SFT};
use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_recipes::{AnswerJob, Ending, Scorer, answer};
use puna_tokenizer::chat::{Message, Role};
use serde_json::json;

#[test]
fn fine_tuning_learns_and_resumes_to_the_same_bits() {
    let desk = Desk::new();
    desk.check_exact("sft", SFT, 3);
    let log = desk.log("whole");
    let last = log.last().unwrap();
    assert!(last.loss.unwrap() < 0.5 * log[0].loss.unwrap(), "{log:?}");
    assert!(last.metrics["held_out_loss"].is_finite());
    assert!(last.samples[0].starts_with("Tell me about a fox.\n→"), "{:?}", last.samples);
    let opened = puna_hub::open(&desk.checkpoint("whole"), &OpenOptions::default()).unwrap();
    // It says its chat form, which is the built-in one.
    let messages = [Message::new(Role::System, "Be kind."), Message::new(Role::User, " Hi ")];
    let turns =
        [&messages[..], &[Message::new(Role::Assistant, "Yes?"), Message::new(Role::User, "No")]]
            .concat();
    let llama2 = puna_tokenizer::chat::ChatTemplate::Llama2;
    assert!(opened.checkpoint.chat_template.is_some());
    for dialogue in [&messages[..], &turns] {
        assert_eq!(
            opened.template.render(&opened.tokenizer, dialogue).unwrap(),
            llama2.render(&opened.tokenizer, dialogue).unwrap()
        );
    }
}

#[test]
fn a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew() {
    let desk = Desk::new();
    desk.run("sft", SFT, "hurt", 2, 5).unwrap();
    let file = Path::new(&desk.checkpoint("hurt")).join("optimizer.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let (ending, notes) = desk.run_noting("sft", SFT, "hurt", 2, u64::MAX);
    let error = ending.unwrap_err().to_string();
    assert!(error.contains("checkpoints: expected one that is whole, found none"), "{error}");
    assert!(notes.iter().any(|note| note.ends_with("this checkpoint is passed over")), "{notes:?}");
    assert!(file.exists(), "what may be read yet stays");
}

#[test]
fn reward_models_learn_resume_and_score() {
    let desk = Desk::new();
    desk.check_exact("reward", REWARD, 2);
    let metrics = desk.log("whole").last().unwrap().metrics.clone();
    assert!(metrics["held_out_accuracy"] > 0.9 && metrics["unsafe_recall"] > 0.9, "{metrics:?}");
    let cpu = Cpu::new(2).unwrap();
    let scorer =
        Scorer::open(Path::new(&desk.checkpoint("whole")), &OpenOptions::default(), &cpu).unwrap();
    let dialogue = |answer: &str| {
        vec![
            Message::new(Role::User, "Tell me about a fox, please, number 7."),
            Message::new(Role::Assistant, answer),
        ]
    };
    let both = [dialogue("Once there was a fox."), dialogue("No, see the boat.")];
    let scores = scorer.score(&cpu, &both.map(|d| scorer.tokens(&d).unwrap())).unwrap();
    assert!(scores[0].0 > scores[1].0, "{scores:?}");
    let error = scorer.tokens(&dialogue(&"boat ".repeat(1000))).unwrap_err().to_string();
    assert!(error.contains("expected at most 512 tokens, found "), "{error}");
    // A language model is none.
    let error = puna_hub::open(&desk.checkpoint("whole"), &OpenOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("LlamaForSequenceClassification"), "{error}");
}

#[test]
fn preferences_are_learned_without_a_reward_model() {
    let desk = Desk::new();
    let text = "model = \"stories260K\"\nseq_len = 128\nbatch = 16\nprecision = \"f32\"\n[[data]]\npath = \"pairs.jsonl\"\n\
                [optimizer]\nlr = 1e-3\n[eval]\nfraction = 0.1\n[checkpoint]\nevery = 2\nkeep = 1\n";
    desk.check_exact("dpo", text, 2);
    let metrics = desk.log("whole").last().unwrap().metrics.clone();
    assert!(metrics["held_out_accuracy"] > 0.9, "{metrics:?}");
    // Policy and reference begin as one.
    assert!((desk.log("whole")[0].loss.unwrap() - 2f64.ln()).abs() < 1e-12);
}

/// The best policy is known: of all answers of one token, the one that the reward model scores highest.
#[test]
fn reinforcement_finds_the_best_answer_and_resumes_to_the_same_bits() {
    let desk = Desk::new();
    desk.run("reward", REWARD, "rm", 2, u64::MAX).unwrap();
    let rm = desk.checkpoint("rm");
    let text = format!(
        "model = \"stories260K\"\nhelpfulness = \"{rm}\"\nsafety = \"{rm}\"\nprecision = \"f32\"\nbatch = 32\nmini_batch = 16\n\
         iterations = 12\nmax_new_tokens = 6\nkl_coef = 0.002\n[[prompts]]\npath = \"prompts.jsonl\"\n\
         [optimizer]\nlr = 1e-3\n[eval]\nevery = 6\nfraction = 0.2\n[checkpoint]\nevery = 4\nkeep = 1\n"
    );
    desk.check_exact("ppo", &text, 5);
    let log = desk.log("whole");
    let (first, last) = (&log[0].metrics, &log[11].metrics);
    assert!(last["reward"] > first["reward"] + 0.05, "{first:?} {last:?}");
    assert!(
        first["kl"].abs() < 1e-9,
        "before the first update the policy is the reference: {first:?}"
    );
    assert!(last["entropy"] < first["entropy"]);
}

#[test]
fn the_best_of_many_answers_are_trained_on() {
    let desk = Desk::new();
    desk.run("sft", SFT, "sft", 2, u64::MAX).unwrap();
    desk.run("reward", REWARD, "rm", 2, u64::MAX).unwrap();
    let text = format!(
        "model = \"{}\"\nhelpfulness = \"{}\"\nk = 3\nmax_new_tokens = 24\n[[prompts]]\npath = \"prompts.jsonl\"\nat_most = 20\n\
         [sft]\nbatch = 2\nseq_len = 128\nepochs = 1\nprecision = \"f32\"\n",
        desk.checkpoint("sft"),
        desk.checkpoint("rm")
    );
    let (ending, notes) = desk.run_noting("reject", &text, "a", 2, u64::MAX);
    assert_eq!(ending.unwrap(), Ending::Complete);
    assert!(notes.iter().any(|note| note.starts_with("of 3 answers the best scores")), "{notes:?}");
    // Cut off in the middle of prompts that are scored together, it goes on to the same answers and scores.
    fs::create_dir_all(desk.path("b")).unwrap();
    fs::write(desk.path("b/config.toml"), &text).unwrap();
    let samples = fs::read_to_string(desk.path("a/samples.jsonl")).unwrap();
    let cut = samples.match_indices('\n').nth(9).unwrap().0 + 20;
    fs::write(desk.path("b/samples.jsonl"), &samples[..cut]).unwrap();
    desk.run("reject", &text, "b", 1, u64::MAX).unwrap();
    assert_eq!(samples, fs::read_to_string(desk.path("b/samples.jsonl")).unwrap());
    assert!(desk.result("a") == desk.result("b"));
}

/// The scores of `puna answer` are those of the same texts in `puna reward score`; folders of runs stand for their checkpoints.
#[test]
fn answers_are_scored() {
    let desk = Desk::new();
    desk.run("sft", SFT, "sft", 2, u64::MAX).unwrap();
    desk.run("reward", REWARD, "rm", 2, u64::MAX).unwrap();
    let (cpu, options, rm) = (Cpu::new(2).unwrap(), OpenOptions::default(), desk.checkpoint("rm"));
    let (rm, out) = (Path::new(&rm), desk.path("answers.jsonl"));
    let sft = desk.path("sft");
    let job = AnswerJob {
        model: sft.to_str().unwrap(),
        prompts: &desk.path("prompts.jsonl"),
        helpfulness: Some(&desk.path("rm")),
        safety: None,
        out: &out,
        n_answers: 2,
        max_new_tokens: 24,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
    };
    assert!(answer(&cpu, &options, &job, &|| false, &mut |_, _| {}).unwrap());
    let scorer = Scorer::open(rm, &options, &cpu).unwrap();
    let mut n = 0;
    for line in fs::read_to_string(&out).unwrap().lines().take(40) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let asked = record["prompt"].as_str().unwrap();
        let complete =
            record["answers"].as_array().unwrap().iter().filter(|a| a["complete"] == true);
        for answer in complete {
            let said = answer["text"].as_str().unwrap();
            // Of other answers the text may have ids that are not those drawn.
            if !NOUNS.iter().any(|noun| said == format!("Once there was a {noun}.")) {
                continue;
            }
            let messages = [(Role::User, asked), (Role::Assistant, said)]
                .map(|(role, content)| Message { role, content: content.to_owned() });
            let score = scorer.score(&cpu, &[scorer.tokens(&messages).unwrap()]).unwrap()[0];
            let found = answer["score"].as_f64().unwrap();
            assert!((found - score.probability()).abs() < 1e-6, "{said}: {found} {score:?}");
            assert_eq!(
                (&answer["helpfulness"], &answer["safety"]),
                (&answer["score"], &json!(1.0))
            );
            n += 1;
        }
    }
    assert!(n > 4, "{n}");
    // What is there was asked for otherwise: it is not gone on with.
    for job in [AnswerJob { n_answers: 3, ..job.clone() }, AnswerJob { helpfulness: None, ..job }] {
        let error = answer(&cpu, &options, &job, &|| false, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("found 2, with scores"), "{error}");
    }
}

#[test]
fn what_a_preprompt_makes_better_is_learned_without_it() {
    let desk = Desk::new();
    desk.run("sft", SFT, "sft", 2, u64::MAX).unwrap();
    desk.run("reward", REWARD, "rm", 2, u64::MAX).unwrap();
    let text = format!(
        "model = \"{}\"\nsafety = \"{}\"\nmax_new_tokens = 16\npreprompts = [\"Be kind.\"]\n\
         [[prompts]]\npath = \"prompts.jsonl\"\nat_most = 70\n\
         [sft]\nbatch = 2\nseq_len = 128\nepochs = 1\nprecision = \"f32\"\n",
        desk.checkpoint("sft"),
        desk.checkpoint("rm")
    );
    let (ending, notes) = desk.run_noting("distill", &text, "a", 2, u64::MAX);
    assert_eq!(ending.unwrap(), Ending::Complete);
    let all = fs::read_to_string(desk.path("a/distilled.jsonl")).unwrap();
    let records: Vec<serde_json::Value> =
        all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let score = |record: &serde_json::Value, key: &str| record[key].as_f64().unwrap();
    let better: Vec<_> = records
        .iter()
        .filter(|r| score(r, "distilled_score") > score(r, "plain_score"))
        .filter(|r| r["complete"] == true && r["distilled"] != "")
        .collect();
    let kept = fs::read_to_string(desk.path("a/kept.jsonl")).unwrap();
    assert_eq!((records.len(), kept.lines().count()), (70, better.len()));
    assert!(!better.is_empty() && better.len() < records.len());
    for (line, record) in kept.lines().zip(better) {
        let dialogue: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(dialogue["messages"][0], record["prompt"][0], "the preprompt is not learned");
        assert_eq!(dialogue["messages"][1]["content"], record["distilled"]);
    }
    let counted =
        format!("{} of 70 distilled answers are scored higher and kept", kept.lines().count());
    assert!(notes.contains(&counted), "{notes:?}");
    let left_out =
        format!("left out {}: distilled answers not scored higher", 70 - kept.lines().count());
    assert!(desk.log("a")[0].events.contains(&left_out), "{:?}", desk.log("a")[0]);
    // Cut off after the first answers that are scored together, it goes on to the same bytes.
    fs::create_dir_all(desk.path("b")).unwrap();
    fs::write(desk.path("b/config.toml"), &text).unwrap();
    let cut = all.match_indices('\n').nth(66).unwrap().0 + 1;
    fs::write(desk.path("b/distilled.jsonl"), &all[..cut]).unwrap();
    desk.run("distill", &text, "b", 1, u64::MAX).unwrap();
    assert_eq!(all, fs::read_to_string(desk.path("b/distilled.jsonl")).unwrap());
    assert!(desk.result("a") == desk.result("b"));
}

#[test]
fn an_instruction_is_kept_in_mind() {
    let desk = Desk::new();
    desk.run("sft", SFT, "sft", 2, u64::MAX).unwrap();
    let text = format!(
        "model = \"{}\"\nn_dialogues = 12\nmax_turns = 2\nn_recall = 8\nmax_new_tokens = 16\nturns = [\"Tell me about a fox.\"]\n\
         [[constraints]]\nlong = \"Tell me about a {{}}.\"\nshort = \"A {{}}.\"\nvalues = [\"dog\", \"bear\"]\nquestion = \"Tell me about it.\"\n\
         [sft]\nbatch = 2\nseq_len = 256\nepochs = 1\nprecision = \"f32\"\n",
        desk.checkpoint("sft")
    );
    let (ending, notes) = desk.run_noting("gatt", &text, "gatt", 2, u64::MAX);
    assert_eq!(ending.unwrap(), Ending::Complete, "{notes:?}");
    let recall: serde_json::Value =
        serde_json::from_slice(&fs::read(desk.path("gatt/recall.json")).unwrap()).unwrap();
    assert!(recall["before"]["2"].is_number() && recall["after"]["6"].is_number(), "{recall}");
    let event = &desk.log("gatt")[0].events[0];
    assert!(event.starts_with("of ") && event.contains("the first 12 that recall"), "{event}");
    // The instruction is in the first message alone.
    for line in fs::read_to_string(desk.path("gatt/dialogues.jsonl")).unwrap().lines() {
        let dialogue: serde_json::Value = serde_json::from_str(line).unwrap();
        let said = |i: usize| dialogue["messages"][i]["content"].as_str().unwrap().to_owned();
        assert!(["dog", "bear"].iter().any(|value| said(0).contains(value)), "{line}");
        assert_eq!(said(2), "Tell me about it.");
    }
}

#[test]
fn a_plan_runs_stages_in_order_and_goes_on() {
    let desk = Desk::new();
    fs::write(desk.path("sft.toml"), SFT).unwrap();
    fs::write(desk.path("rm.toml"), REWARD.replace("\"stories260K\"", "\"@tuned\"")).unwrap();
    let plan = "[[stage]]\nname = \"tuned\"\nrecipe = \"sft\"\nconfig = \"sft.toml\"\n\
                [[stage]]\nname = \"rm\"\nrecipe = \"reward\"\nconfig = \"rm.toml\"\n\
                [compare]\nmodels = [\"stories260K\", \"@tuned\"]\nhelpfulness = \"@rm\"\nprompts = [{ path = \"prompts.jsonl\", at_most = 12 }]\n\
                max_new_tokens = 24\n";
    while desk.run("align", plan, "plan", 2, 7).unwrap() == Ending::Stopped {}
    let table = fs::read_to_string(desk.path("plan/table.jsonl")).unwrap();
    let score = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["score"].as_f64().unwrap()
    };
    let scores: Vec<f64> = table.lines().map(score).collect();
    assert!(scores[1] > scores[0], "{table}");
}

/// Every kind of fault is left out on demand, counted, and told with the place of its first; else it ends the run.
#[test]
fn what_is_left_out_is_told() {
    let desk = Desk::new();
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    let good = json!({ "messages": [message("user", "Say cat."), message("assistant", "cat")] });
    let faults = [
        json!({ "messages": [message("assistant", "Hi"), message("user", "Hi")] }),
        json!({ "messages": [message("user", "Hi"), message("assistant", " ")] }),
        json!({ "messages": [message("user", "Hi"), message("assistant", &"so ".repeat(400))] }),
        json!({ "messages": [message("user", "Hi"), message("assistant", "")] }),
    ];
    let lines: Vec<_> =
        [&good].into_iter().chain(&faults).chain([&good]).map(|v| format!("{v}\n")).collect();
    fs::write(desk.path("mixed.jsonl"), lines.concat()).unwrap();
    let pairs = [
        json!({ "prompt": [message("user", "Say cat.")], "chosen": "cat", "rejected": "dog" }),
        json!({ "prompt": [message("user", "Say cat.")], "chosen": "cat", "rejected": "cat" }),
        json!({ "prompt": [message("user", "Say cat.")], "rejected": "cat" }),
    ];
    let more = NOUNS.map(|noun| {
        let prompt = [message("user", &format!("Say {noun}, please."))];
        json!({ "prompt": prompt, "chosen": noun, "rejected": "no", "safety": "both_safe" })
    });
    let pairs: String = pairs.iter().chain(&more).map(|v| format!("{v}\n")).collect();
    fs::write(desk.path("mixed-pairs.jsonl"), pairs).unwrap();
    let prompts = [
        json!({ "prompt": "Tell me about a cat, please, number 7." }),
        json!({ "prompt": "" }),
        json!({ "prompt": "cat ".repeat(600) }),
    ];
    fs::write(desk.path("mixed-prompts.jsonl"), prompts.map(|v| format!("{v}\n")).concat())
        .unwrap();

    let sft = SFT.replace("chat.jsonl", "mixed.jsonl");
    let reward = REWARD.replace("pairs.jsonl", "mixed-pairs.jsonl");
    desk.run("sft", SFT, "sft", 2, u64::MAX).unwrap();
    desk.run("reward", REWARD, "rm", 1, 1).unwrap();
    let reject = format!(
        "model = \"{}\"\nhelpfulness = \"{}\"\nk = 24\nmax_new_tokens = 40\n[[prompts]]\npath = \"mixed-prompts.jsonl\"\n",
        desk.checkpoint("sft"),
        desk.checkpoint("rm")
    );
    for (stage, text, left_out) in [
        (
            "sft",
            &sft,
            &[
                "1: roles out of order, first",
                "2: an empty answer, first",
                "1: longer than a row, first",
            ][..],
        ),
        ("reward", &reward, &["1: equal answers, first", "1: a missing or wrong field, first"]),
        ("reject", &reject, &["1: an empty prompt, first", "1: too long to be answered, first"]),
    ] {
        let refused = desk.plan(stage, text).unwrap_err().to_string();
        assert!(refused.contains("line 2"), "{refused}");
        let skipping = match stage {
            "reject" => format!("{text}unfit = \"skip\"\n"),
            _ => format!("unfit = \"skip\"\n{text}"),
        };
        let plan = desk.plan(stage, &skipping).unwrap();
        let told: Vec<_> = plan.iter().filter(|line| line.starts_with("left out")).collect();
        assert_eq!(told.len(), left_out.len(), "{told:?}");
        for expected in left_out {
            let line = told.iter().find(|line| line.contains(expected));
            assert!(
                line.is_some_and(|line| line.contains("line ")),
                "{told:?} has no {expected:?}"
            );
        }
        // It is in the log, too, with the first step.
        let run = format!("left-out-{stage}");
        let skipping = match stage {
            "reject" => format!("{skipping}[sft]\nbatch = 1\nseq_len = 64\n"),
            _ => skipping,
        };
        desk.run(stage, &skipping, &run, 1, u64::MAX).unwrap();
        let events = &desk.log(&run)[0].events;
        for expected in left_out {
            let is_told =
                |event: &&String| event.starts_with("left out ") && event.contains(expected);
            assert!(events.iter().any(|event| is_told(&event)), "{events:?} has no {expected:?}");
        }
        // And once, also where a run was ended before its first checkpoint and begins again.
        if stage == "sft" {
            fs::remove_dir_all(desk.path(&run).join("checkpoints")).unwrap();
            desk.run(stage, &skipping, &run, 1, u64::MAX).unwrap();
            let log = desk.log(&run);
            let events = log.iter().flat_map(|record| &record.events);
            let n = events.filter(|event| event.starts_with("left out ")).count();
            assert_eq!(n, left_out.len(), "{log:?}");
        }
    }
}

/// A model or reward model with one number that is none is refused, with the tensor.
#[test]
fn numbers_that_are_not_finite_are_named() {
    let desk = Desk::new();
    desk.run("sft", SFT, "sft", 2, u64::MAX).unwrap();
    desk.run("reward", REWARD, "rm", 2, u64::MAX).unwrap();
    for run in ["sft", "rm"] {
        let file = Path::new(&desk.checkpoint(run)).join("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&file, bytes).unwrap();
    }
    let text = SFT.replace("stories260K", &desk.checkpoint("sft"));
    let error = desk.run("sft", &text, "on", 1, 0).unwrap_err().to_string();
    assert!(error.contains("expected finite numbers, found NaN"), "{error}");
    assert!(error.starts_with(&desk.checkpoint("sft")) && error.contains("norm"), "{error}");
    let rm = desk.checkpoint("rm");
    let options = OpenOptions::default();
    let Err(error) = Scorer::open(Path::new(&rm), &options, &Cpu::new(1).unwrap()) else {
        panic!("a reward model with NaN was opened");
    };
    let error = error.to_string();
    assert!(error.contains("expected finite numbers, found NaN"), "{error}");
    assert!(error.contains("model.safetensors") && error.contains(".weight"), "{error}");
}

#[test]
fn mistakes_are_named() {
    let desk = Desk::new();
    fs::write(desk.path("bad.jsonl"), "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"\"}]}\n").unwrap();
    let long = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "so ".repeat(400)}]});
    fs::write(desk.path("long.jsonl"), format!("{long}\n")).unwrap();
    for (stage, text, expected) in [
        (
            "sft",
            SFT.replace("batch = 4", "batch = 0"),
            "sft.toml:3:1: batch: expected 1 or more, found 0",
        ),
        (
            "sft",
            SFT.replace("seq_len = 128", "seq_len = 1024"),
            "expected 2 to 512, the model's context, found 1024",
        ),
        (
            "sft",
            SFT.replace("lr = 3e-3", "lr = 3.0"),
            "lr: expected a number above 0, at most 1, found 3",
        ),
        (
            "sft",
            SFT.replace("fraction = 0.1", "fraction = 1.5"),
            "fraction: expected a number, 0 to 1, found 1.5",
        ),
        (
            "reward",
            REWARD.replace("\"pairs.jsonl\"", "\"pairs.jsonl\"\nshare = 1.0"),
            "share: expected shares of together less than 1, found 1",
        ),
        ("sft", format!("colour = 1\n{SFT}"), "sft.toml:1:1: unknown field `colour`"),
        (
            "sft",
            SFT.replace("chat.jsonl", "bad.jsonl"),
            "bad.jsonl: line 1: expected text in message 2 (assistant), found none",
        ),
        (
            "sft",
            SFT.replace("chat.jsonl", "long.jsonl"),
            "long.jsonl: line 1: expected at most 128 tokens, found",
        ),
        ("sft", SFT.replace("chat.jsonl", "none.jsonl"), "none.jsonl"),
        ("sft", format!("{SFT}[lora]\nrank = 0\n"), "rank: expected a whole number, 1 or more"),
        ("reward", REWARD.replace("\"small\"", "\"huge\""), "unknown variant `huge`"),
        (
            "align",
            "[[stage]]\nname = \"a b\"\nrecipe = \"sft\"\nconfig = \"x\"\n".to_owned(),
            "name: expected letters, digits and hyphens",
        ),
    ] {
        let found = desk.run(stage, &text, "never", 1, 0).unwrap_err().to_string();
        assert!(found.contains(expected), "{found}\nexpected {expected}");
        assert!(!desk.path("never").exists());
    }
    // Skipped, they are counted; if nothing is left, that is said.
    let text = format!("unfit = \"skip\"\n{}", SFT.replace("chat.jsonl", "long.jsonl"));
    let found = desk.run("sft", &text, "never", 1, 0).unwrap_err().to_string();
    assert!(found.contains("no conversation is left to train on"), "{found}");
    // Another run's folder is refused.
    desk.run("sft", SFT, "run", 1, 2).unwrap();
    let found = desk.run("sft", &SFT.replace("3e-3", "2e-3"), "run", 1, 0).unwrap_err().to_string();
    assert!(found.contains("setting optimizer of the run"), "{found}");
}
