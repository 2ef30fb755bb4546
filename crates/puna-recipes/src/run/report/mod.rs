//! A run's curves as one HTML page that asks for nothing else: drawings and style are in it, scripts are not needed.
//!
//! The page is a function of the run's files: no clock, no path, no name of a folder. Long runs are thinned where the eye
//! sees no difference, and texts and events have a limit, so that a page stays below two megabytes.

mod axis;
mod chart;
mod fields;
mod history;
mod html;
mod page;
mod thin;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use puna_data::Sha256;
use serde::Deserialize;

use super::RunFolder;
use super::checkpoint::STATE;
use crate::RecipeError;
use history::History;

/// Draws the page of the run in `folder`. Nothing there is changed.
///
/// # Errors
/// No run is there, or one without a step; its log or its configuration cannot be read.
pub fn report_page(folder: &Path) -> Result<String, RecipeError> {
    let folder = RunFolder::find(folder)?;
    let config = folder.config()?;
    let history = History::read(folder.path())?;
    let (checkpoint, notes) = newest_checkpoint(&folder)?;
    let id = Sha256::of(config.as_bytes());
    Ok(page::draw(&page::Run { id, config, history, checkpoint, notes }))
}

/// What a checkpoint of any recipe says of its run.
#[derive(Debug, Default, Deserialize)]
struct Recorded {
    step: u64,
    #[serde(default)]
    isa: String,
    #[serde(default)]
    settings: BTreeMap<String, String>,
    /// Hashes of what the run is made of, by name.
    #[serde(default)]
    chain: BTreeMap<String, Option<String>>,
    /// Hashes of the checkpoint's files.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

/// The newest checkpoint that can be read, with what is to be said of those that cannot.
fn newest_checkpoint(folder: &RunFolder) -> Result<(Option<Recorded>, Vec<String>), RecipeError> {
    let mut notes = Vec::new();
    let has_any = folder.path().join("checkpoints").is_dir();
    let steps = if has_any { folder.checkpoints()? } else { Vec::new() };
    for step in steps.into_iter().rev() {
        let state = fs::read(folder.checkpoint(step).join(STATE)).map_err(|e| e.to_string());
        match state.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string())) {
            Ok(recorded) => return Ok((Some(recorded), notes)),
            Err(e) => notes.push(format!("The checkpoint of step {step} cannot be read: {e}.")),
        }
    }
    Ok((None, notes))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// A run's folder with a log.
    fn run(log: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.toml"), "tokens = 9 # <all>\n").unwrap();
        fs::write(folder.path().join("log.jsonl"), log).unwrap();
        folder
    }

    fn page(log: &str) -> String {
        report_page(run(log).path()).unwrap()
    }

    /// Each part after the one before it.
    #[track_caller]
    fn assert_in_order(page: &str, parts: &[&str]) {
        let mut rest = page;
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in its place"));
            rest = &rest[at + part.len()..];
        }
    }

    #[test]
    fn known_fields_come_first_and_all_are_drawn() {
        let page = page(
            r#"{"step":1,"tokens":512,"loss":6.25,"lr":0.001,"kl":0.5,"chosen_reward":-2,"grad_norm":3.5,"tokens_per_sec":256,"peak_share":0.5}
{"step":2,"tokens":1024,"loss":5.5,"lr":0.002,"kl":0.25,"chosen_reward":4,"grad_norm":1.5,"tokens_per_sec":128,"peak_share":0.25,"bits_per_byte":[["tales",1.5],["wiki",2.5]]}
"#,
        );
        assert_in_order(&page, &["step 2", "1.02k tokens", "6 s in its steps"]);
        assert_in_order(
            &page,
            &["<dd>5.500</dd>", "lowest 5.500 at step 2", "bits per byte: wiki"],
        );
        let charts = [
            ">Training loss</h3>",
            ">Held-out bits per byte</h3>",
            "<li class=\"c0\">tales</li><li class=\"c1\">wiki</li>",
            ">Learning rate</h3>",
            ">Gradient norm</h3>",
            ">Tokens a second</h3>",
            ">Share of the machine&#39;s peak</h3>",
            ">chosen reward</h3>",
            ">kl</h3>",
        ];
        assert_in_order(&page, &charts);
        assert_in_order(&page, &["<desc", "from 6.250 at step 1 to 5.500 at step 2", "</desc>"]);
        assert_in_order(&page, &["<td>1</td><td>6.250</td>", "<td>2</td><td>5.500</td>"]);
    }

    #[test]
    fn a_page_holds_text_as_text_and_asks_for_nothing() {
        let page = page(
            r#"{"step":1,"loss":2,"<b>":1,"samples":["first <img src=x>"]}
{"step":2,"loss":2,"samples":["second"],"events":["went <on>"]}
{"step":3,"loss":null,"fault":"a \"spike\""}
"#,
        );
        assert_in_order(&page, &["went &lt;on&gt;", "Left out: a &quot;spike&quot;"]);
        assert_in_order(&page, &["first &lt;img src=x&gt;", "second", "tokens = 9 # &lt;all&gt;"]);
        for part in ["<img", "<on>", "<b>", "<script", "http:", "https:", "url(", "@import"] {
            assert!(!page.contains(part), "{part}");
        }
        // Every element that is opened is closed.
        for name in ["html", "body", "main", "section", "figure", "svg", "g", "details", "dl", "ol"]
        {
            let n_opened = page.matches(&format!("<{name}>")).count()
                + page.matches(&format!("<{name} ")).count();
            assert_eq!(n_opened, page.matches(&format!("</{name}>")).count(), "{name}");
        }
    }

    #[test]
    fn a_long_run_has_a_small_page() {
        let mut log = String::new();
        for step in 1..=100_000u64 {
            // Differs from step to step, as noise does.
            let noise = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / 1e8;
            let _ = write!(log, "{{\"step\":{step},\"tokens\":{step}");
            for key in ["loss", "lr", "grad_norm", "tokens_per_sec", "peak_share", "a", "b", "c"] {
                let _ = write!(log, ",\"{key}\":{}", 1.0 + noise);
            }
            if step % 100 == 0 {
                let text = "é<&>".repeat(400);
                let _ = write!(
                    log,
                    ",\"samples\":[\"{text}\",\"{text}\"],\"events\":[\"{text}\"],\"bits_per_byte\":[[\"s\",{noise}]]"
                );
            }
            log.push_str("}\n");
        }
        let log = log
            .replace("\"step\":77777,\"tokens\":77777,\"loss\":1.", "\"step\":77777,\"loss\":8.");
        let folder = run(&log);
        let first = report_page(folder.path()).unwrap();
        assert!(first.len() < 2_000_000, "{} bytes", first.len());
        assert_in_order(&first, &["800 earlier ones are left out", "of 1,000 steps with texts"]);
        // The one that stands out is near the top of its curve, which is 2,000 high; the others are below.
        let cloud = first.split("<path class=\"cloud c0\" d=\"").nth(1).unwrap();
        let dots = cloud.split('"').next().unwrap().split_terminator("h0");
        let high = dots.filter(|dot| dot.split(' ').nth(1).unwrap().parse::<u32>().unwrap() < 1000);
        assert!(high.clone().all(|dot| dot.starts_with("M3111 ")) && high.count() == 1);
        assert!(report_page(folder.path()).unwrap() == first, "the same files, another page");
    }

    #[test]
    fn checkpoints_tell_what_the_run_is_made_of() {
        let folder = run("{\"step\":9,\"loss\":2}\n{\"step");
        let state = |step: u64, text: &str| {
            let path = folder.path().join(format!("checkpoints/step-{step:08}"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(STATE), text).unwrap();
        };
        let recorded = r#"{"step":5,"isa":"avx2","settings":{"steps":"1200","lr":"0.25"},
            "chain":{"data":"aa11","parent":null},"files":{"config.json":"bb22"},"more":[1]}"#;
        state(5, recorded);
        state(8, "{\"step\":");
        let page = report_page(folder.path()).unwrap();
        assert_in_order(&page, &["step 9 of 1,200", "The end of the log is cut off"]);
        assert_in_order(&page, &["The checkpoint of step 8 cannot be read: EOF"]);
        assert_in_order(&page, &["checkpoint of step 5 records it, computed with avx2"]);
        assert_in_order(&page, &["data</dt><dd>aa11", "parent</dt><dd>none", "lr</dt><dd>0.25"]);
        assert_in_order(&page, &["config.json</dt><dd>bb22"]);
    }

    #[test]
    fn what_is_no_run_is_said() {
        let folder = run("{\"step\":1}\n");
        fs::remove_file(folder.path().join("log.jsonl")).unwrap();
        let message = |folder: &Path| report_page(folder).unwrap_err().to_string();
        assert!(
            message(folder.path()).ends_with(
                "run: expected a folder with log.jsonl, found none: no step was made yet"
            )
        );
        fs::remove_file(folder.path().join("config.toml")).unwrap();
        let found = message(folder.path());
        assert!(found.ends_with("run: expected a folder with config.toml, found none"), "{found}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made there");
    }
}
