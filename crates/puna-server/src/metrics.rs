//! Numbers for Prometheus, in its text form (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use puna_engine::{Load, Usage};

/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Durations by size.
#[derive(Default)]
struct Histogram {
    /// How many were within each bound and above the one before; the last are above all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    fn add(&self, duration: Duration) {
        let secs = duration.as_secs_f64();
        let idx = BOUNDS.iter().position(|&bound| secs <= bound).unwrap_or(BOUNDS.len());
        self.counts[idx].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(duration.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, name: &str, model: &str, out: &mut String) {
        let mut total = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (count, bound) in self.counts.iter().zip(bounds) {
            total += count.load(Ordering::Relaxed);
            line(out, format_args!("{name}_bucket{{model=\"{model}\",le=\"{bound}\"}} {total}"));
        }
        let sum = self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
        line(out, format_args!("{name}_sum{{model=\"{model}\"}} {sum}"));
        line(out, format_args!("{name}_count{{model=\"{model}\"}} {total}"));
    }
}

/// What one model did.
#[derive(Default)]
pub(crate) struct ModelMetrics {
    n_prompt: AtomicU64,
    n_cached: AtomicU64,
    n_generated: AtomicU64,
    n_drafted: AtomicU64,
    n_accepted: AtomicU64,
    first_token: Histogram,
    per_token: Histogram,
}

impl ModelMetrics {
    /// Counts a request that ended.
    pub(crate) fn count(&self, usage: &Usage) {
        for (counter, n) in [
            (&self.n_prompt, usage.n_prompt),
            (&self.n_cached, usage.n_cached),
            (&self.n_generated, usage.n_generated),
            (&self.n_drafted, usage.n_drafted),
            (&self.n_accepted, usage.n_accepted),
        ] {
            counter.fetch_add(n as u64, Ordering::Relaxed);
        }
    }

    /// From the request's arrival to the first token of an answer.
    pub(crate) fn first_token(&self, duration: Duration) {
        self.first_token.add(duration);
    }

    /// From one token of an answer to the next.
    pub(crate) fn next_token(&self, duration: Duration) {
        self.per_token.add(duration);
    }
}

/// What the server did.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Answers by route and status.
    responses: Mutex<BTreeMap<(String, u16), u64>>,
}

impl Metrics {
    /// Counts a response. `route` is one of the server's own patterns, so that their number is small.
    pub(crate) fn respond(&self, route: &str, status: u16) {
        let mut responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        *responses.entry((route.to_owned(), status)).or_default() += 1;
    }

    /// Everything, with the state of each model.
    pub(crate) fn render(&self, models: &[(&str, &ModelMetrics, Load)]) -> String {
        let mut out = String::new();
        head(&mut out, "puna_http_responses_total", "counter", "Responses by route and status.");
        let responses = self.responses.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, status), n) in &*responses {
            let name = "puna_http_responses_total";
            line(
                &mut out,
                format_args!("{name}{{route=\"{}\",status=\"{status}\"}} {n}", escape(route)),
            );
        }
        drop(responses);
        type Gauge = (&'static str, &'static str, fn(&Load) -> usize);
        let gauges: [Gauge; 5] = [
            ("puna_requests_waiting", "Requests in the queue.", |load| load.n_waiting),
            ("puna_requests_running", "Requests in the batch.", |load| load.n_running),
            ("puna_cache_blocks", "Cache blocks.", |load| load.n_blocks),
            ("puna_cache_blocks_held", "Cache blocks that requests hold.", |load| {
                load.n_blocks_held
            }),
            ("puna_cache_blocks_idle", "Cache blocks kept for requests to come.", |load| {
                load.n_blocks_idle
            }),
        ];
        for (name, help, value) in gauges {
            head(&mut out, name, "gauge", help);
            for (model, _, load) in models {
                line(
                    &mut out,
                    format_args!("{name}{{model=\"{}\"}} {}", escape(model), value(load)),
                );
            }
        }
        type Counter = (&'static str, &'static str, fn(&ModelMetrics) -> &AtomicU64);
        let counters: [Counter; 5] = [
            ("puna_prompt_tokens_total", "Tokens of prompts.", |m| &m.n_prompt),
            ("puna_cached_tokens_total", "Tokens of prompts found in the cache.", |m| &m.n_cached),
            ("puna_generated_tokens_total", "Tokens of answers.", |m| &m.n_generated),
            ("puna_drafted_tokens_total", "Tokens read ahead.", |m| &m.n_drafted),
            ("puna_accepted_tokens_total", "Tokens read ahead that were then drawn.", |m| {
                &m.n_accepted
            }),
        ];
        for (name, help, value) in counters {
            head(&mut out, name, "counter", help);
            for (model, metrics, _) in models {
                let n = value(metrics).load(Ordering::Relaxed);
                line(&mut out, format_args!("{name}{{model=\"{}\"}} {n}", escape(model)));
            }
        }
        type Times = (&'static str, &'static str, fn(&ModelMetrics) -> &Histogram);
        let histograms: [Times; 2] = [
            ("puna_first_token_seconds", "From a request to its first token.", |m| &m.first_token),
            ("puna_token_seconds", "From a token to the next.", |m| &m.per_token),
        ];
        for (name, help, value) in histograms {
            head(&mut out, name, "histogram", help);
            for (model, metrics, _) in models {
                value(metrics).write(name, &escape(model), &mut out);
            }
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_in_prometheus_form() {
        let (metrics, model) = (Metrics::default(), ModelMetrics::default());
        metrics.respond("/v1/models", 200);
        metrics.respond("/v1/models", 200);
        model.count(&Usage { n_prompt: 7, n_cached: 3, n_generated: 2, ..Usage::default() });
        model.first_token(Duration::from_millis(3));
        model.first_token(Duration::from_secs(500));
        let load = Load { n_running: 4, ..Load::default() };
        let text = metrics.render(&[("a\"b", &model, load)]);
        for line in [
            "puna_http_responses_total{route=\"/v1/models\",status=\"200\"} 2",
            "puna_requests_running{model=\"a\\\"b\"} 4",
            "puna_prompt_tokens_total{model=\"a\\\"b\"} 7",
            "# TYPE puna_first_token_seconds histogram",
            "puna_first_token_seconds_bucket{model=\"a\\\"b\",le=\"0.0025\"} 0",
            "puna_first_token_seconds_bucket{model=\"a\\\"b\",le=\"0.005\"} 1",
            "puna_first_token_seconds_bucket{model=\"a\\\"b\",le=\"120\"} 1",
            "puna_first_token_seconds_bucket{model=\"a\\\"b\",le=\"+Inf\"} 2",
            "puna_first_token_seconds_sum{model=\"a\\\"b\"} 500.003",
            "puna_first_token_seconds_count{model=\"a\\\"b\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }
}
