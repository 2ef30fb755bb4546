//! What the dashboard knows of a run.

use std::collections::VecDeque;

use puna_recipes::{Report, StepRecord};

/// Events that are remembered.
const N_EVENTS: usize = 50;

/// What the dashboard knows of a run.
#[derive(Debug, Default)]
pub(in super::super) struct View {
    /// The run's folder.
    pub(super) run: String,
    /// Steps of the whole run.
    pub(super) n_steps: u64,
    /// Step and loss, as far as it is finite, ascending.
    pub(super) losses: Vec<(u64, f64)>,
    /// The last step, left out or not.
    pub(super) step: u64,
    /// The last step that has numbers.
    pub(super) last: StepRecord,
    /// Seconds to the end; nothing before the first step.
    pub(super) eta_secs: Option<f64>,
    /// Held-out bits per byte of each source: the last ones, and the fewest.
    pub(super) bits_per_byte: Vec<(String, f64, f64)>,
    /// The step of the last texts, and the texts.
    pub(super) samples: (u64, Vec<String>),
    /// The last events, the newest at the end.
    pub(super) events: VecDeque<String>,
}

impl View {
    /// The view of a run that has a log already, or an empty one.
    pub(in super::super) fn new(run: String, n_steps: u64, log: &[StepRecord]) -> Self {
        let mut view = Self { run, n_steps, ..Self::default() };
        log.iter().for_each(|record| view.step(record));
        view
    }

    /// Takes note of what happened.
    pub(super) fn tell(&mut self, report: &Report<'_>) {
        match report {
            Report::Step { record, eta_secs } => {
                self.step(record);
                if record.fault.is_none() {
                    self.eta_secs = Some(*eta_secs);
                }
            }
            Report::Checkpoint { step } => self.event(format!("step {step}: saved")),
            Report::Note(note) => self.event(note.clone()),
        }
    }

    fn step(&mut self, record: &StepRecord) {
        // After the run went back, steps are made again.
        let n_before = self.losses.partition_point(|&(step, _)| step < record.step);
        self.losses.truncate(n_before);
        self.step = record.step;
        if let Some(fault) = &record.fault {
            self.event(format!("left out: {fault}"));
            return;
        }
        self.losses.extend(record.loss.map(|loss| (record.step, loss)));
        for (source, bits) in &record.bits_per_byte {
            match self.bits_per_byte.iter_mut().find(|(name, ..)| name == source) {
                Some((_, last, fewest)) => (*last, *fewest) = (*bits, bits.min(*fewest)),
                None => self.bits_per_byte.push((source.clone(), *bits, *bits)),
            }
        }
        if !record.samples.is_empty() {
            self.samples = (record.step, record.samples.clone());
        }
        self.last = record.clone();
    }

    fn event(&mut self, event: String) {
        if self.events.len() == N_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// How much of the run is done, from 0 to 1.
    pub(super) fn share_done(&self) -> f64 {
        match self.n_steps {
            0 => 0.0,
            n => (self.step as f64 / n as f64).min(1.0),
        }
    }

    /// The curve in at most `n` points, each the mean of as many steps.
    pub(super) fn curve(&self, n: usize) -> Vec<(f64, f64)> {
        let len = self.losses.len().div_ceil(n.max(1)).max(1);
        let mean = |part: &[(u64, f64)]| {
            let of = |pick: fn(&(u64, f64)) -> f64| {
                part.iter().map(pick).sum::<f64>() / part.len() as f64
            };
            (of(|point| point.0 as f64), of(|point| point.1))
        };
        self.losses.chunks(len).map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(view: &mut View, step: u64, loss: f64) {
        let record = StepRecord {
            step,
            loss: Some(loss),
            bits_per_byte: vec![("tales".to_owned(), loss / 2.0)],
            ..StepRecord::default()
        };
        view.tell(&Report::Step { record: &record, eta_secs: 9.0 });
    }

    #[test]
    fn steps_made_again_replace_the_earlier_ones() {
        let mut view = View { n_steps: 8, ..View::default() };
        (1..=4).for_each(|n| step(&mut view, n, 5.0 - n as f64));
        step(&mut view, 3, 7.0);
        assert_eq!(view.losses, [(1, 4.0), (2, 3.0), (3, 7.0)]);
        assert_eq!(view.bits_per_byte, [("tales".to_owned(), 3.5, 0.5)]);
        assert_eq!((view.share_done(), view.eta_secs), (0.375, Some(9.0)));
    }

    #[test]
    fn a_step_that_was_left_out_is_an_event() {
        let mut view = View { n_steps: 8, ..View::default() };
        step(&mut view, 1, 2.0);
        let record =
            StepRecord { step: 2, fault: Some("a spike".to_owned()), ..StepRecord::default() };
        view.tell(&Report::Step { record: &record, eta_secs: f64::NAN });
        assert_eq!((view.step, view.last.step, view.eta_secs), (2, 1, Some(9.0)));
        assert_eq!(view.events, ["left out: a spike"]);
        for i in 0..200 {
            view.tell(&Report::Note(i.to_string()));
        }
        assert_eq!((view.events.len(), view.events.back().unwrap().as_str()), (N_EVENTS, "199"));
    }

    #[test]
    fn a_curve_has_as_many_points_as_there_is_room() {
        let mut view = View::default();
        (1..=1000).for_each(|n| step(&mut view, n, n as f64));
        let curve = view.curve(10);
        assert_eq!((curve.len(), curve[0], curve[9]), (10, (50.5, 50.5), (950.5, 950.5)));
        assert_eq!(view.curve(0).len(), 1);
        assert_eq!(View::default().curve(10), []);
    }
}
