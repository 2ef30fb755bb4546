//! The outcome of `bench`, as text and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::measure::{Bench, Measured, Phase};

/// Writes the table: a line a phase, and the peaks below.
pub(super) fn write(out: &mut impl Write, bench: &Bench, runs: &[Measured]) -> io::Result<()> {
    writeln!(
        out,
        "threads  work              tokens/s   spread (10-90 %)      GB/s  of peak     GOP/s"
    )?;
    for run in runs {
        for (name, phase) in rows(bench, run) {
            let secs = phase.median();
            let gb_s = phase.n_bytes / secs / 1e9;
            writeln!(
                out,
                "{:>7}  {name:<16} {:>9}   {:>8} - {:<8} {gb_s:>9.1}  {:>5.0} % {:>9.1}",
                run.n_threads,
                speed(phase, 0.5),
                speed(phase, 0.9),
                speed(phase, 0.1),
                100.0 * share_of_peak(phase, run),
                phase.n_ops / secs / 1e9,
            )?;
        }
    }
    let above_peak =
        |run: &Measured| run.decode.as_ref().is_some_and(|phase| share_of_peak(phase, run) > 1.0);
    if runs.iter().any(above_peak) {
        writeln!(out, "more than the peak: weights stay in the caches of the processor")?;
    }
    for run in runs {
        let p = &run.peaks;
        let or_dash = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.0}"));
        writeln!(
            out,
            "peak with {} ({}): read {:.1} GB/s; f32 {:.0}, bf16 {}, int8 {} GOP/s",
            crate::units::plural(run.n_threads, "thread"),
            run.isa,
            p.read_gb_s,
            p.f32_gflops,
            or_dash(p.bf16_gflops),
            or_dash(p.int8_gops),
        )?;
    }
    Ok(())
}

/// What was measured, with names: `prefill 512`, `decode 64@2000`, `decode 64 x8` for eight sequences together.
fn rows<'a>(bench: &Bench, run: &'a Measured) -> Vec<(String, &'a Phase)> {
    let at = if bench.depth > 0 { format!("@{}", bench.depth) } else { String::new() };
    let prefill =
        run.prefill.iter().map(|phase| (format!("prefill {}{at}", bench.n_prompt), phase));
    let name = format!("decode {}{at}", bench.n_answer);
    let decode = run.decode.iter().map(|phase| (name.clone(), phase));
    let parallel = run.parallel.iter().map(|(n, phase)| (format!("{name} x{n}"), phase));
    prefill.chain(decode).chain(parallel).collect()
}

/// Bytes a second beside what the machine reads from memory.
fn share_of_peak(phase: &Phase, run: &Measured) -> f64 {
    phase.n_bytes / phase.median() / 1e9 / run.peaks.read_gb_s
}

fn speed(phase: &Phase, quantile: f64) -> String {
    crate::units::rate(phase.n_tokens, phase.quantile(quantile))
}

/// One run's object. What was not measured is null.
pub(super) fn to_json(run: &Measured) -> Value {
    let parallel = run.parallel.iter().map(|(n, phase)| {
        let mut object = phase_json(phase);
        object["sequences"] = json!(n);
        object
    });
    json!({
        "threads": run.n_threads,
        "isa": run.isa,
        "prefill": run.prefill.as_ref().map(phase_json),
        "decode": run.decode.as_ref().map(phase_json),
        "parallel": parallel.collect::<Vec<_>>(),
        "peak": {
            "f32_gops": run.peaks.f32_gflops,
            "bf16_gops": run.peaks.bf16_gflops,
            "int8_gops": run.peaks.int8_gops,
            "read_gb_per_sec": run.peaks.read_gb_s,
        },
    })
}

fn phase_json(phase: &Phase) -> Value {
    let median = phase.median();
    let speed = |q: f64| phase.n_tokens as f64 / phase.quantile(q);
    json!({
        "tokens_per_sec": { "median": speed(0.5), "p10": speed(0.9), "p90": speed(0.1) },
        "median_secs": median,
        "repetitions": phase.secs.len(),
        "gb_per_sec": phase.n_bytes / median / 1e9,
        "gops": phase.n_ops / median / 1e9,
    })
}
