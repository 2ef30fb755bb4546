//! Stages with `[lora]`: adapters learn alone, and what they make is a model like any other.

use std::fs;
use std::path::{Path, PathBuf};

use puna_engine::Sampling;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_recipes::{AnswerJob, Ending, Scorer, answer};
use puna_tokenizer::chat::{Message, Role};
use serde_json::{Value, json};

use super::desk::{Desk, REWARD, SFT};

/// All matrices that a block has.
const LORA: &str = "[lora]\nrank = 4\nalpha = 8.0\n";

/// The rewards of a good answer and of a bad one.
fn scores(folder: &str) -> [f64; 2] {
    let cpu = Cpu::new(2).unwrap();
    let scorer = Scorer::open(Path::new(folder), &OpenOptions::default(), &cpu).unwrap();
    let dialogue = |answer: &str| {
        vec![
            Message::new(Role::User, "Tell me about a fox, please, number 7."),
            Message::new(Role::Assistant, answer),
        ]
    };
    let both = [dialogue("Once there was a fox."), dialogue("No, see the boat.")];
    let scores = scorer.score(&cpu, &both.map(|d| scorer.tokens(&d).unwrap())).unwrap();
    [scores[0].0, scores[1].0]
}

fn config(checkpoint: &str) -> Value {
    let file = Path::new(checkpoint).join("adapter_config.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// The names of tensors in a file of a checkpoint.
fn tensors(checkpoint: &str, file: &str) -> Vec<String> {
    let bytes = fs::read(Path::new(checkpoint).join(file)).unwrap();
    let (n, rest) = bytes.split_at(8);
    let n = u64::from_le_bytes(n.try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&rest[..n]).unwrap();
    header.keys().cloned().collect()
}

fn refusal(model: &str) -> String {
    puna_hub::open(model, &OpenOptions::default()).err().unwrap().to_string()
}

#[test]
fn adapters_learn_alone_and_resume_to_the_same_bits() {
    let desk = Desk::new();
    let text = SFT.replace("lr = 3e-3", "lr = 2e-2").replace("epochs = 1", "epochs = 3");
    let text = format!(
        "{text}[lora]\nrank = 4\nalpha = 8.0\ntargets = [\"q_proj\", \"v_proj\", \"down_proj\"]\n"
    );
    desk.check_exact("sft", &text, 3);
    let log = desk.log("whole");
    assert!(log.last().unwrap().loss.unwrap() < 0.8 * log[0].loss.unwrap());
    let checkpoint = desk.checkpoint("whole");
    assert!(!Path::new(&checkpoint).join("model.safetensors").exists());
    let config = config(&checkpoint);
    assert_eq!((&config["r"], &config["peft_type"]), (&json!(4), &json!("LORA")));
    assert_eq!(config["base_model_name_or_path"], "stories260K");
    assert_eq!(config["target_modules"], json!(["down_proj", "q_proj", "v_proj"]));
    // Added to the model as it is opened, they answer as the run's last samples did, at most rounded otherwise.
    let prompts = desk.path("asked.jsonl");
    fs::write(&prompts, "{\"prompt\": \"Tell me about a fox.\", \"mark\": 1}\n").unwrap();
    let answer_with = |model: &str, lora: Option<PathBuf>, out: &str| -> Value {
        let out = desk.path(out);
        let job = AnswerJob {
            model,
            helpfulness: None,
            safety: None,
            prompts: &prompts,
            out: &out,
            n_answers: 1,
            max_new_tokens: 12,
            sampling: Sampling::greedy(),
        };
        let options = OpenOptions { lora, ..OpenOptions::default() };
        assert!(answer(&Cpu::new(2).unwrap(), &options, &job, &|| false, &mut |_, _| {}).unwrap());
        serde_json::from_slice(&fs::read(&out).unwrap()).unwrap()
    };
    let plain = answer_with("stories260K", None, "plain.jsonl");
    let tuned = answer_with("stories260K", Some(PathBuf::from(&checkpoint)), "tuned.jsonl");
    assert_eq!(tuned["mark"], 1);
    assert!(
        tuned["answers"][0]["text"].as_str().unwrap().starts_with("Once there was a"),
        "{tuned}"
    );
    assert_ne!(tuned["answers"], plain["answers"]);
    // The folder alone is the same model, and says what it is for.
    assert_eq!(tuned, answer_with(&checkpoint, None, "folder.jsonl"));
    let opened = puna_hub::open(&checkpoint, &OpenOptions::default()).unwrap();
    assert!(opened.is_chat && opened.base == "stories260K");
    // It scores nothing.
    let cpu = Cpu::new(1).unwrap();
    let error = Scorer::open(Path::new(&checkpoint), &OpenOptions::default(), &cpu).err().unwrap();
    assert!(error.to_string().contains("task_type: expected SEQ_CLS, found CAUSAL_LM"), "{error}");
}

#[test]
fn reward_models_of_adapters_learn_resume_and_score() {
    let desk = Desk::new();
    desk.check_exact("reward", &format!("{}{LORA}", REWARD.replace("2e-3", "1e-2")), 2);
    let metrics = desk.log("whole").last().unwrap().metrics.clone();
    assert!(metrics["held_out_accuracy"] > 0.9, "{metrics:?}");
    let checkpoint = desk.checkpoint("whole");
    let written = config(&checkpoint);
    assert_eq!(written["task_type"], "SEQ_CLS");
    assert_eq!(written["modules_to_save"], json!(["score"]));
    let names = tensors(&checkpoint, "adapter_model.safetensors");
    assert!(names.contains(&"base_model.model.score.weight".to_owned()), "{names:?}");
    let [good, bad] = scores(&checkpoint);
    assert!(good > bad, "{good} {bad}");
    // Its row is checked as all tensors are.
    let file = Path::new(&checkpoint).join("adapter_model.safetensors");
    let whole = fs::read(&file).unwrap();
    let header_end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&whole[8..header_end]).unwrap();
    let row = &header["base_model.model.score.weight"]["data_offsets"][0];
    let at = header_end + row.as_u64().unwrap() as usize;
    let mut hurt = whole.clone();
    hurt[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, hurt).unwrap();
    let cpu = Cpu::new(1).unwrap();
    let error = Scorer::open(Path::new(&checkpoint), &OpenOptions::default(), &cpu);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("score.weight: expected finite numbers, found NaN"), "{error}");
    fs::write(&file, whole).unwrap();
    // A language model is none, alone or added to one.
    let expected = "adapter_config.json: task_type: expected CAUSAL_LM, found SEQ_CLS";
    let error = refusal(&checkpoint);
    assert!(error.contains(expected), "{error}");
    let lora = Some(PathBuf::from(&checkpoint));
    let options = OpenOptions { lora, ..OpenOptions::default() };
    let error = puna_hub::open("stories260K", &options).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}");
    // Without the model that they belong to there is no network.
    let file = Path::new(&checkpoint).join("adapter_config.json");
    let text = fs::read_to_string(&file).unwrap();
    for (base, found) in [
        ("\"gone\"", "found \"gone\", and no file, folder or model is called that"),
        ("null", "found none; name it here, or add them to it with --lora"),
    ] {
        fs::write(&file, text.replace("\"stories260K\"", base)).unwrap();
        let cpu = Cpu::new(1).unwrap();
        let error = Scorer::open(Path::new(&checkpoint), &OpenOptions::default(), &cpu);
        let error = error.err().unwrap().to_string();
        let expected = "adapter_config.json: base_model_name_or_path: expected the model that the \
                        adapters are added to, ";
        assert!(error.contains(&format!("{expected}{found}")), "{error}");
    }
}

/// Ratios of exactly 1 before the first update are checked by the program itself.
#[test]
fn reinforcement_trains_adapters_and_leaves_their_base() {
    let desk = Desk::new();
    desk.run("reward", &format!("{}{LORA}", REWARD.replace("2e-3", "1e-2")), "rm", 2, u64::MAX)
        .unwrap();
    let rm = desk.checkpoint("rm");
    let text = format!(
        "model = \"stories260K\"\nhelpfulness = \"{rm}\"\nsafety = \"{rm}\"\nprecision = \"f32\"\nbatch = 32\nmini_batch = 16\n\
         iterations = 8\nmax_new_tokens = 6\nkl_coef = 0.002\n[[prompts]]\npath = \"prompts.jsonl\"\n\
         [optimizer]\nlr = 5e-3\n[eval]\nevery = 4\nfraction = 0.2\n[checkpoint]\nevery = 4\nkeep = 1\n{LORA}"
    );
    // Both reward models have the weights of one, and only while they score.
    desk.run("reward", REWARD, "whole-rm", 2, 1).unwrap();
    let memory = |text: &str| -> f64 {
        let plan = desk.plan("ppo", text).unwrap();
        let line = plan.iter().find_map(|line| line.strip_prefix("memory      ")).unwrap();
        line.strip_suffix(" MB").unwrap().parse().unwrap()
    };
    let saved = memory(&text.replace(&rm, &desk.checkpoint("whole-rm"))) - memory(&text);
    assert!((0.9..1.3).contains(&saved), "{saved} MB of a network of 260 thousand parameters");
    desk.check_exact("ppo", &text, 3);
    let (whole, pieces) = (desk.log("whole"), desk.log("pieces"));
    assert_eq!(whole[0].metrics["kl"], 0.0, "the policy begins as the reference");
    let (first, last) = (&whole[0].metrics, &whole[7].metrics);
    assert!(last["kl"] > 0.0 && last["reward"] > first["reward"], "{first:?} {last:?}");
    // Updates leave the reference: a run that reads it anew, after three of them, is as far from it.
    for (a, b) in whole.iter().zip(&pieces) {
        assert_eq!(a.metrics["kl"], b.metrics["kl"], "iteration {}", a.step);
    }
    // The value head is none of PEFT's.
    let checkpoint = desk.checkpoint("whole");
    let names = tensors(&checkpoint, "adapter_model.safetensors");
    assert!(names.iter().all(|name| name.contains(".lora_")), "{names:?}");
    assert_eq!(tensors(&checkpoint, "value_head.safetensors"), ["score.weight"]);
    assert!(puna_hub::open(&checkpoint, &OpenOptions::default()).is_ok());
}

#[test]
fn stages_go_on_from_adapters() {
    let desk = Desk::new();
    let on_tuned = |text: &str| format!("{}{LORA}", text.replace("\"stories260K\"", "\"@tuned\""));
    let sft = SFT.replace("lr = 3e-3", "lr = 2e-2").replace("epochs = 1", "epochs = 2");
    let ppo = "model = \"stories260K\"\nhelpfulness = \"@rm\"\nprecision = \"f32\"\nbatch = 8\nmini_batch = 8\niterations = 2\n\
               max_new_tokens = 16\n[[prompts]]\npath = \"prompts.jsonl\"\n[optimizer]\nlr = 1e-4\n[eval]\nevery = 0\n";
    let own_sft =
        "[sft]\nbatch = 4\nseq_len = 128\nepochs = 1\nprecision = \"f32\"\n[sft.lora]\nrank = 2\n";
    let prompts = "[[prompts]]\npath = \"prompts.jsonl\"\nat_most = 12\n";
    let reject = format!(
        "model = \"@ppo\"\nhelpfulness = \"@rm\"\nsafety = \"@rm\"\nk = 4\nmax_new_tokens = 64\n{prompts}{own_sft}"
    );
    let distill = format!(
        "model = \"@rs\"\nsafety = \"@rm\"\nmax_new_tokens = 64\npreprompts = [\"Be kind.\"]\n{}{own_sft}",
        prompts.replace("12", "60")
    );
    let dpo = "model = \"stories260K\"\nseq_len = 128\nbatch = 32\nprecision = \"f32\"\n[[data]]\npath = \"pairs.jsonl\"\n";
    let mut plan = String::new();
    for (name, recipe, text) in [
        ("tuned", "sft", format!("{sft}{LORA}")),
        ("rm", "reward", on_tuned(&REWARD.replace("2e-3", "1e-2"))),
        ("ppo", "ppo", on_tuned(ppo)),
        ("rs", "reject", reject),
        ("safe", "distill", distill),
        ("dpo", "dpo", on_tuned(dpo)),
    ] {
        fs::write(desk.path(&format!("{name}.toml")), text).unwrap();
        plan += &format!(
            "[[stage]]\nname = \"{name}\"\nrecipe = \"{recipe}\"\nconfig = \"{name}.toml\"\n"
        );
    }
    plan += "[compare]\nmodels = [\"stories260K\", \"@tuned\", \"@rs\"]\nhelpfulness = \"@rm\"\n\
             prompts = [{ path = \"prompts.jsonl\", at_most = 12 }]\nmax_new_tokens = 24\n";
    let ending = desk.run("align", &plan, "plan", 2, u64::MAX);
    assert_eq!(ending.unwrap(), Ending::Complete);
    let table = fs::read_to_string(desk.path("plan/table.jsonl")).unwrap();
    let score =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["score"].as_f64().unwrap();
    let scores: Vec<f64> = table.lines().map(score).collect();
    assert!(scores.len() == 3 && scores[1] > scores[0], "{table}");
    // Each names what it is added to by its whole path.
    let (tuned, policy) = (desk.checkpoint("plan/tuned"), desk.checkpoint("plan/ppo"));
    assert!(Path::new(&tuned).is_absolute());
    for stage in ["rm", "ppo", "dpo"] {
        let stage = desk.checkpoint(&format!("plan/{stage}"));
        assert_eq!(config(&stage)["base_model_name_or_path"], tuned);
    }
    let third = config(&desk.checkpoint("plan/rs"));
    assert_eq!(third["base_model_name_or_path"], policy);
    // One that is gone is named where it is missed.
    fs::remove_dir_all(&tuned).unwrap();
    let error = refusal(&desk.checkpoint("plan/rs"));
    assert!(error.starts_with(&policy) && error.contains(&tuned), "{error}");
}
