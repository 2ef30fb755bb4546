//! A run on the terminal in one live line.

use indicatif::{ProgressBar, ProgressStyle};
use puna_recipes::{Report, StepRecord, TimeSpan};

/// One live line; what is worth keeping stays above it.
pub(super) struct Line {
    bar: ProgressBar,
}

impl Line {
    pub(super) fn new() -> Self {
        let style = ProgressStyle::with_template("{msg}").expect("the template is well-formed");
        Self { bar: ProgressBar::new_spinner().with_style(style) }
    }

    pub(super) fn tell(&mut self, report: &Report<'_>) {
        if let Report::Step { record, eta_secs } = report {
            self.step(record, *eta_secs);
        }
        for line in kept(report) {
            self.bar.suspend(|| note!("{line}"));
        }
    }

    fn step(&self, record: &StepRecord, eta_secs: f64) {
        if let (Some(loss), Some(norm)) = (record.loss, record.grad_norm) {
            let of_peak = |share| format!(", {:.0} % of the peak", 100.0 * share);
            let peak = record.peak_share.map(of_peak).unwrap_or_default();
            self.bar.set_message(format!(
                "step {}: loss {loss:.4}, rate {:.2e}, gradient {norm:.3}, {:.0} tokens/s{peak}, {} left",
                record.step,
                record.lr,
                record.tokens_per_sec,
                TimeSpan(eta_secs)
            ));
        }
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// What of a report is worth keeping.
pub(super) fn kept(report: &Report<'_>) -> Vec<String> {
    let record = match report {
        Report::Checkpoint { step } => return vec![format!("step {step}: saved")],
        Report::Note(note) => return vec![format!("note: {note}")],
        Report::Step { record, .. } => record,
    };
    let mut lines = Vec::new();
    if !record.bits_per_byte.is_empty() {
        let of = |(source, bits): &(String, f64)| format!("{source} {bits:.3}");
        let sources: Vec<String> = record.bits_per_byte.iter().map(of).collect();
        let loss = record.loss.unwrap_or(f64::NAN);
        lines.push(format!(
            "step {}: loss {loss:.4}, held-out bits per byte: {}",
            record.step,
            sources.join(", ")
        ));
    }
    if !record.metrics.is_empty()
        && (!record.samples.is_empty() || record.metrics.contains_key("held_out_loss"))
    {
        let of = |(name, value): (&String, &f64)| format!("{} {value:.4}", name.replace('_', " "));
        let metrics: Vec<String> = record.metrics.iter().map(of).collect();
        lines.push(format!("step {}: {}", record.step, metrics.join(", ")));
    }
    lines.extend(record.samples.iter().map(|text| format!("  {}", text.replace('\n', "\n  "))));
    lines
}
