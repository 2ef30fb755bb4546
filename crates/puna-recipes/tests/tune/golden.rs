//! Debug runs of milliseconds with the losses that PyTorch computes for them, of stages that draw answers on what they drew;
//! and PPO, whose answers change with every update, with those that were found when the file was made (`testdata/scripts/tuned_peers.py --golden`).

use std::fs;

use puna_kernels::{Cpu, Isa};
use puna_recipes::Ending;
use serde_json::Value;

use crate::desk::Desk;

#[test]
fn debug_runs_have_the_golden_losses() {
    let desk = Desk::new();
    let text = fs::read_to_string(puna_testkit::testdata("train/tuned.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    for (name, text) in golden["files"].as_object().unwrap() {
        fs::write(desk.path(name), text.as_str().unwrap()).unwrap();
    }
    for run in golden["runs"].as_array().unwrap() {
        let of = |key: &str| run[key].as_str().unwrap();
        // Weights that the test itself trains for 60 steps are other ones on another instruction set, by less than a
        // thousandth in what is computed from them; the file has AVX2's.
        let is_of_trained = of("name") == "tuned" || of("config").contains("tuned");
        let (cpu, share) = match Cpu::with_isa(Isa::Avx2, 2) {
            Ok(cpu) if is_of_trained => (cpu, 1e-4),
            _ => (Cpu::new(2).unwrap(), if is_of_trained { 2e-3 } else { 1e-4 }),
        };
        let (ending, _) = desk.run_on(&cpu, of("recipe"), of("config"), of("name"), u64::MAX);
        assert_eq!(ending.unwrap(), Ending::Complete);
        let first = run["first"].as_u64().unwrap() as usize;
        let log = desk.log(of("name"));
        let steps = run["steps"].as_array().unwrap();
        assert!(!steps.is_empty() && log.len() >= first + steps.len(), "{}", of("name"));
        for (step, record) in steps.iter().zip(&log[first..]) {
            let found = [record.loss.unwrap(), record.grad_norm.unwrap()];
            for (found, expected) in found.into_iter().zip(step.as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                let bound = share * expected.abs().max(1e-3);
                assert!((found - expected).abs() <= bound, "{}: {record:?}, {step}", of("name"));
            }
        }
    }
}
