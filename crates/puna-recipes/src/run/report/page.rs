//! The page: last figures, curves, events, what the model wrote, and what the run is made of.

use std::collections::BTreeMap;
use std::fmt::Write;

use puna_data::Sha256;

use super::Recorded;
use super::axis::grouped;
use super::chart::Chart;
use super::fields::{self, Field};
use super::history::{Event, History};
use super::html::{Text, cut};
use super::thin::spread;
use crate::numbers::{Count, TimeSpan};

const STYLE: &str = include_str!("style.css");

/// Last figures that stand at the top, events and steps with texts that are listed, and texts of a step.
const MOST_FIGURES: usize = 16;
const MOST_EVENTS: usize = 200;
const MOST_SAMPLED_STEPS: usize = 40;
const MOST_SAMPLES: usize = 12;

/// Characters of a text that are shown, and of all texts.
const MOST_CHARS: usize = 1500;
const MOST_CHARS_OF_SAMPLES: usize = 300_000;

/// What a page is drawn from.
pub(super) struct Run {
    /// Of the configuration: what tells runs apart.
    pub id: Sha256,
    /// As the run began with it.
    pub config: String,
    /// What its log tells.
    pub history: History,
    /// What its newest checkpoint tells.
    pub checkpoint: Option<Recorded>,
    /// What is missing on the page.
    pub notes: Vec<String>,
}

/// The whole page.
pub(super) fn draw(run: &Run) -> String {
    let title = format!("Training run {}", &run.id.to_string()[..8]);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    let history = &run.history;
    let mut keys: Vec<&String> = history.groups.keys().collect();
    keys.sort_by_key(|key| fields::rank(key));
    let fields: Vec<(&String, Field)> =
        keys.into_iter().map(|key| (key, fields::field(key))).collect();
    let charts: Vec<Chart<'_>> = fields
        .iter()
        .map(|(key, field)| Chart::new(field, &history.groups[*key], history.steps))
        .collect();
    draw_head(&mut out, run, &title);
    draw_figures(&mut out, &fields, &charts);
    draw_curves(&mut out, &charts, &history.events);
    draw_events(&mut out, &history.events);
    draw_samples(&mut out, &history.samples);
    draw_origin(&mut out, run);
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        out,
        "<footer>Drawn by puna {version} from the run's own files: the same files give the same page.</footer>\n</body>\n</html>"
    );
    out
}

fn draw_head(out: &mut String, run: &Run, title: &str) {
    let History { steps, tokens, secs, is_cut, .. } = run.history;
    let n_steps = run.checkpoint.as_ref().and_then(|c| c.settings.get("steps")?.parse().ok());
    let mut facts = vec![match n_steps {
        Some(n) => format!("step {} of {}", grouped(steps.1), grouped(n)),
        None => format!("step {}", grouped(steps.1)),
    }];
    if tokens > 0 {
        facts.push(format!("{} tokens", Count(tokens as f64)));
    }
    if secs > 0.0 {
        facts.push(format!("{} in its steps", TimeSpan(secs)));
    }
    let _ = writeln!(
        out,
        "<header>\n<h1>{title}</h1>\n<p>{}</p>\n</header>\n<main>",
        facts.join(" · ")
    );
    let cut = "The end of the log is cut off, as when a program is killed while it writes: the page shows what is whole.";
    let notes = is_cut.then_some(cut).into_iter().chain(run.notes.iter().map(String::as_str));
    for note in notes {
        let _ = writeln!(out, "<p class=\"note\" role=\"note\">{}</p>", Text(note));
    }
}

fn draw_figures(out: &mut String, fields: &[(&String, Field)], charts: &[Chart<'_>]) {
    let figures = fields.iter().zip(charts).flat_map(|((_, field), chart)| {
        chart.last_figures().into_iter().map(move |figure| (field, figure))
    });
    out.push_str("<section aria-label=\"Last figures\">\n<dl class=\"figures\">\n");
    for (field, (name, last, note)) in figures.take(MOST_FIGURES) {
        let unit = if field.unit == "%" { " %" } else { "" };
        let name = if name.is_empty() { String::new() } else { format!(": {name}") };
        let _ = writeln!(
            out,
            "<div><dt>{}{}</dt><dd>{last}{unit}</dd><dd class=\"less\">{note}</dd></div>",
            Text(&field.title),
            Text(&name)
        );
    }
    out.push_str("</dl>\n</section>\n");
}

fn draw_curves(out: &mut String, charts: &[Chart<'_>], events: &[Event]) {
    out.push_str("<section aria-labelledby=\"curves\">\n<h2 id=\"curves\">Curves</h2>\n");
    out.push_str("<p class=\"less\">Over steps. Where points are faint, the line is the mean of each and its neighbours.");
    if !events.is_empty() {
        out.push_str(
            " <span class=\"mark told\"></span> the run went on or back, <span class=\"mark fault\"></span> a step was left out.",
        );
    }
    out.push_str("</p>\n<div class=\"charts\">\n");
    for (i, chart) in charts.iter().enumerate() {
        chart.draw(out, &format!("chart-{i}"), events);
    }
    out.push_str("</div>\n</section>\n");
}

fn draw_events(out: &mut String, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"events\">\n<h2 id=\"events\">Events</h2>\n");
    let n_left_out = events.len().saturating_sub(MOST_EVENTS);
    if n_left_out > 0 {
        let _ = writeln!(
            out,
            "<p class=\"less\">{} earlier ones are left out.</p>",
            grouped(n_left_out as u64)
        );
    }
    out.push_str("<ol class=\"rows\">\n");
    for Event { step, is_fault, text } in &events[n_left_out..] {
        let class = if *is_fault { "fault" } else { "told" };
        let what = if *is_fault { "Left out: " } else { "" };
        let text = cut(text, MOST_CHARS / 3);
        let _ = writeln!(
            out,
            "<li><span class=\"step\"><span class=\"mark {class}\"></span>step {}</span><span>{what}{}</span></li>",
            grouped(*step),
            Text(&text)
        );
    }
    out.push_str("</ol>\n</section>\n");
}

fn draw_samples(out: &mut String, samples: &[(u64, Vec<String>)]) {
    if samples.is_empty() {
        return;
    }
    out.push_str(
        "<section aria-labelledby=\"samples\">\n<h2 id=\"samples\">What the model wrote</h2>\n",
    );
    let n_chars = |texts: &Vec<String>| -> usize {
        texts.iter().take(MOST_SAMPLES).map(|text| text.chars().count().min(MOST_CHARS)).sum()
    };
    let longest = samples.iter().map(|(_, texts)| n_chars(texts)).max().unwrap_or(0);
    let n_shown = (MOST_CHARS_OF_SAMPLES / longest.max(1)).clamp(2, MOST_SAMPLED_STEPS);
    let shown = spread(samples, n_shown);
    if shown.len() < samples.len() {
        let _ = writeln!(
            out,
            "<p class=\"less\">After {} of {} steps with texts.</p>",
            shown.len(),
            grouped(samples.len() as u64)
        );
    }
    out.push_str("<ol class=\"rows\">\n");
    for (step, texts) in &shown {
        let _ = write!(out, "<li><span class=\"step\">step {}</span><div>", grouped(*step));
        for text in texts.iter().take(MOST_SAMPLES) {
            let _ = write!(
                out,
                "<blockquote dir=\"auto\">{}</blockquote>",
                Text(&cut(text, MOST_CHARS))
            );
        }
        if texts.len() > MOST_SAMPLES {
            let _ = write!(
                out,
                "<p class=\"less\">{} more are left out.</p>",
                texts.len() - MOST_SAMPLES
            );
        }
        out.push_str("</div></li>\n");
    }
    out.push_str("</ol>\n</section>\n");
}

fn draw_origin(out: &mut String, run: &Run) {
    out.push_str(
        "<section aria-labelledby=\"origin\">\n<h2 id=\"origin\">What it is made of</h2>\n",
    );
    match &run.checkpoint {
        Some(recorded) => {
            let _ = writeln!(
                out,
                "<p class=\"less\">As the checkpoint of step {} records it, computed with {}.</p>",
                grouped(recorded.step),
                Text(&recorded.isa)
            );
            let hash = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "none".to_owned());
            let chain = recorded.chain.iter().map(|(name, of)| (name.clone(), hash(of))).collect();
            draw_table(out, "SHA-256 of", &chain, true);
            draw_table(out, "Settings", &recorded.settings, true);
            draw_table(out, "SHA-256 of the checkpoint's files", &recorded.files, false);
        }
        None => {
            out.push_str("<p class=\"less\">No checkpoint yet, so hashes are not recorded.</p>\n");
        }
    }
    let _ = writeln!(
        out,
        "<details><summary>Configuration, SHA-256 {}…</summary><pre tabindex=\"0\">{}</pre></details>\n</section>\n</main>",
        &run.id.to_string()[..16],
        Text(&run.config)
    );
}

fn draw_table(out: &mut String, title: &str, rows: &BTreeMap<String, String>, is_open: bool) {
    if rows.is_empty() {
        return;
    }
    let open = if is_open { " open" } else { "" };
    let _ = writeln!(out, "<details{open}><summary>{title}</summary><dl class=\"facts\">");
    for (name, value) in rows {
        let _ = writeln!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            Text(&name.replace('_', " ")),
            Text(value)
        );
    }
    out.push_str("</dl></details>\n");
}
