"""Puna beside llama.cpp (PyPI llama-cpp-python): the same files, threads and lengths, in turn, in one run.

    python bench/beside_llama_cpp.py [--rows prefill,decode] [--shapes 7b] [--types q8_0] [--rounds 3] [--record]

bench/README.md tells what is measured and how. `--without-peer` runs Puna alone and needs nothing but Python.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import common
import table

WORKER = Path(__file__).resolve().parent / "llama_cpp_worker.py"
TYPES = ["q4_0", "q4_k_m", "q5_k_m", "q6_k", "q8_0", "bf16", "f16", "f32"]
SHAPES = ["15m", "110m", "tinyllama-1.1b", "7b", "13b", "70b"]
SMALL = SHAPES[:2]
# Row, its shapes, and the types of each.
ROWS = {
    "prefill": {"tinyllama-1.1b": TYPES},
    "decode": {"tinyllama-1.1b": TYPES, "7b": TYPES} | {shape: ["q4_0", "q8_0", "f16", "f32"] for shape in SMALL},
    "parallel": {"tinyllama-1.1b": ["q4_0", "q4_k_m", "q8_0", "bf16"]},
    "depth": {"tinyllama-1.1b": ["q4_0"]},
    "start": {"7b": ["q4_0", "q4_k_m"]},
    "memory": {"tinyllama-1.1b": TYPES, "7b": ["q4_0", "q4_k_m"]},
    "drafts": {"tinyllama-1.1b": ["q4_0", "q8_0"]},
}
# Tokens of an answer whose median pass is taken.
ANSWER = {"7b": 16, "15m": 192, "110m": 192}
START_PROMPT = 128
# Larger files that this run wrote are removed after their last use.
LARGE_BYTES = 3e9
# Bytes a weight takes, roughly, to tell which files fit into memory.
WEIGHT_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 1.07}
N_WEIGHTS = {"7b": 6.74e9, "13b": 13e9, "70b": 69e9}


@dataclass
class Case:
    """A row of the table for one file."""

    row: str
    shape: str
    kind: str


@dataclass
class Figure:
    """What Puna reached in one round, beside which peak of the machine, or below which limit."""

    value: float
    share: float = 0.0
    peak: str = ""
    limit: float = 0.0


def parse_args():
    names = lambda text: [name for name in text.split(",") if name]
    parser = argparse.ArgumentParser(description="Puna beside llama.cpp")
    parser.add_argument("--rows", type=names, default=list(ROWS), help=f"of {','.join(ROWS)}")
    parser.add_argument("--shapes", type=names, help="instead of each row's own")
    parser.add_argument("--types", type=names, help="instead of each row's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--without-peer", action="store_true", help="run Puna alone")
    parser.add_argument("--puna", type=Path, default=common.PUNA, help="the program")
    parser.add_argument("--keep", action="store_true", help="keep large model files")
    parser.add_argument("--record", type=Path, nargs="?", const=common.record_path("llama_cpp"),
                        help="write FILE [default: bench/record/DATE-MACHINE-llama_cpp.json]; rows of it that were "
                             "not measured now stay")  # fmt: skip
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"--rows: {', '.join(sorted(unknown))}; expected some of {', '.join(ROWS)}")
    if unknown := set(args.shapes or []) - set(SHAPES):
        parser.error(f"--shapes: {', '.join(sorted(unknown))}; expected some of {', '.join(SHAPES)}")
    if args.rounds < 1:
        parser.error("--rounds: expected 1 or more")
    if args.without_peer and args.record:
        parser.error("--record needs the peer: its rows are comparisons")
    if not args.puna.exists():
        parser.error(f"--puna: {args.puna} is missing; cargo build --release makes it")
    return args


def cases(args):
    """All cases, those of one file together; and those left out, with the reason."""
    chosen, left_out = [], []
    for row in args.rows:
        for shape in args.shapes or ROWS[row]:
            for kind in args.types or ROWS[row].get(shape, TYPES):
                case, need = Case(row, shape, kind), N_WEIGHTS.get(shape, 0) * WEIGHT_BYTES.get(kind, 0.9)
                if need > 0.9 * memory_bytes():
                    left_out.append(f"{row} {shape} {kind}: {need / 1e9:.0f} GB of weights do not fit into memory")
                else:
                    chosen.append(case)
    files = list(dict.fromkeys((case.shape, case.kind) for case in chosen))
    return sorted(chosen, key=lambda case: files.index((case.shape, case.kind))), left_out


def memory_bytes():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def jobs(case):
    """What both programs do for a case of speeds, one process each."""
    base = {"depth": 0, "prompt": 0, "answer": 0, "parallel": [], "repeats": 5 if case.shape in SMALL else 1}
    if case.row == "prefill":
        return [base | {"prompt": n} for n in (512, 128)]
    if case.row == "decode":
        return [base | {"answer": ANSWER.get(case.shape, 32)}]
    if case.row == "parallel":
        return [base | {"answer": 32, "parallel": [4, 8, 16]}]
    return [base | {"depth": depth, "prompt": 512, "answer": 32} for depth in (2000, 4000)]


def puna_speeds(job, args):
    """By name of the work: tokens a second, and the share of the machine's peak measured in the same process."""
    command = [
        args.puna, "bench", job["path"], "-p", job["prompt"], "-n", job["answer"], "--depth", job["depth"],
        "--ctx", job["depth"] + max(job["prompt"], job["answer"]), "-r", job["repeats"], "--threads", job["threads"],
        "--json",
    ]  # fmt: skip
    if job["parallel"]:
        command += ["--parallel", ",".join(map(str, job["parallel"]))]
    (run,) = json.loads(common.run(*command))["runs"]
    parallel = {phase["sequences"]: phase for phase in run["parallel"]}

    def figure(phase, is_prefill):
        speed = phase["tokens_per_sec"]["median"]
        if is_prefill:
            peak, reach = compute_peak(job["kind"], run["peak"])
            return Figure(speed, phase["gops"] / reach, peak)
        return Figure(speed, phase["gb_per_sec"] / run["peak"]["read_gb_per_sec"], "read")

    found = {"prefill": run["prefill"], "decode": run["decode"], "parallel": parallel}
    return {work: figure(phase, work.startswith("prefill")) for work, phase in by_work(job, found)}


def compute_peak(kind, peaks):
    """The peak of the instructions that products of this type can use here, with its name."""
    name = "int8" if kind.startswith("q") else "bf16" if kind == "bf16" else "f32"
    name = name if peaks[f"{name}_gops"] else "f32"
    return name, peaks[f"{name}_gops"]


def by_work(job, found):
    """Names of the work, as `puna bench` prints them, with what was found for each."""
    at = f"@{job['depth']}" if job["depth"] else ""
    if job["prompt"]:
        yield f"prefill {job['prompt']}{at}", found["prefill"]
    if job["answer"]:
        yield f"decode {job['answer']}{at}", found["decode"]
    for n, value in found["parallel"].items():
        yield f"decode {job['answer']}{at} x{n}", value


def peer(job):
    command = [sys.executable, WORKER, json.dumps(job)]
    return json.loads(common.run(*command))


def in_rounds(args, ours, theirs):
    """Both in turn, the first one changing from round to round; without the peer, ours alone."""
    pairs = []
    for i in range(args.rounds):
        sides = {"ours": ours} if args.without_peer else {"ours": ours, "theirs": theirs}
        order = list(sides) if i % 2 == 0 else list(reversed(sides))
        found = {name: sides[name]() for name in order}
        pairs.append((found["ours"], found.get("theirs")))
    return pairs


def measure_speeds(case, path, args, notes):
    for job in jobs(case):
        job |= {"path": str(path), "kind": case.kind, "threads": args.threads}
        rounds = in_rounds(args, lambda: puna_speeds(job, args), lambda: peer(job))
        theirs = [found for _, found in rounds if found]
        for found in theirs:
            note_peer(notes, found)
        theirs = [dict(by_work(job, found)) for found in theirs]
        for work in rounds[0][0]:
            yield work, "tokens/s", [ours[work] for ours, _ in rounds], [found[work] for found in theirs]


def note_peer(notes, found):
    """Versions, and the most that Python added to one pass of the peer."""
    notes |= {"version": f"llama-cpp-python {found['version']}", "system": found["system"]}
    if "call_us" in found:
        notes["python_us_per_pass"] = max(notes.get("python_us_per_pass", 0), round(found["call_us"], 2))


def prompt_of(path, args):
    """A text of `START_PROMPT` tokens with the one that begins a text, and the ids."""
    text = " ".join("abcdefghijklmnopqrstuvwxyz"[i % 26] for i in range(START_PROMPT - 1))
    ids = json.loads(common.run(args.puna, "tokenize", "--model", path, "--encode", text, "--json"))["ids"]
    ids = [1, *ids]
    if len(ids) != START_PROMPT:
        raise SystemExit(f"{path}: the prompt has {len(ids)} tokens, expected {START_PROMPT}")
    return text, ids


def measure_process(case, path, args, notes):
    """Whole processes: seconds from exec to the end of an answer of one token, or peak memory of a longer one."""
    text, ids = prompt_of(path, args)
    n_answer, ctx = (1 if case.row == "start" else 16), 256
    options = ["--ctx", ctx, "--threads", args.threads, "--json"]
    command = [args.puna, "generate", path, text, "-n", n_answer, "--temperature", "0", *options]
    plan = json.loads(common.run(args.puna, "inspect", path, "--ctx", ctx, "--json"))["memory"]
    limit = 1.1 * path.stat().st_size + plan["kv_cache"] + 100 * 2**20

    def ours():
        start = time.perf_counter()
        found = json.loads(common.run(*command))
        secs = time.perf_counter() - start
        usage = found["usage"]
        if (usage["prompt_tokens"], usage["generated_tokens"]) != (len(ids), n_answer):
            raise SystemExit(f"{path}: expected {len(ids)} and {n_answer} tokens, found {usage}")
        if case.row == "start":
            return Figure(secs)
        return Figure(found["timings"]["peak_memory_bytes"] / 1e6, limit=limit / 1e6)

    def theirs():
        job = {"path": str(path), "threads": args.threads, "ids": ids, "answer": n_answer, "ctx": ctx}
        found = peer(job)
        note_peer(notes, found)
        return found["first_secs"] if case.row == "start" else found["peak_bytes"] / 1e6

    with open(path, "rb") as file:  # into the page cache
        while file.read(1 << 24):
            pass
    rounds = in_rounds(args, ours, theirs)
    work, unit = ("first token", "s") if case.row == "start" else ("peak memory", "MB")
    yield f"{work}, prompt {len(ids)}", unit, [a for a, _ in rounds], [b for _, b in rounds if b]


def measure_drafts(case, path, args):
    """Puna with drafts beside Puna without, which `puna bench` runs in turn; there is no peer."""
    # The smallest shape has a context of 256.
    n_answer = 160 if case.shape == "15m" else 256
    found = common.run(args.puna, "bench", path, "-p", 64, "-n", n_answer, "--draft", 8, "-r", args.rounds,
                       "--threads", args.threads, "--json")  # fmt: skip
    for text in json.loads(found)["texts"]:
        ours = [Figure(speed) for speed in text["drafting_tokens_per_sec"]]
        yield f"{text['text']} text, to plain", "tokens/s", ours, text["plain_tokens_per_sec"]


def measure(case, args, notes):
    path = common.synth(case.shape, case.kind, args.puna)
    if case.row == "drafts":
        found = measure_drafts(case, path, args)
    else:
        whole = case.row in ("start", "memory")
        found = (measure_process if whole else measure_speeds)(case, path, args, notes)
    for work, unit, ours, theirs in found:
        value = table.result(case, work, unit, ours, theirs, common.cpu_flags())
        print("  ".join(table.cells(value)), file=sys.stderr, flush=True)
        yield value


class Record:
    """What is written: an earlier record of the same machine, where there is one, with the rows of this run in it."""

    def __init__(self, args):
        self.path, self.about, self.load = args.record, common.about(args.threads), round(os.getloadavg()[0], 2)
        self.made = {"date": self.about["date"], "commit": self.about["commit"], "rounds": args.rounds}
        self.made["load_before"] = self.load
        self.old = json.loads(self.path.read_text()) if self.path and self.path.exists() else self.about
        for name in ("cpu", "flags", "threads"):
            if self.old.get(name) != self.about[name]:
                raise SystemExit(f"{self.path} has {name} {self.old.get(name)}, here is {self.about[name]}")

    def rows(self, results):
        """Rows measured earlier stay, unless they were measured again."""
        key = lambda value: tuple(value[name] for name in ("row", "shape", "type", "work"))
        merged = {key(value): value for value in self.old.get("results", [])}
        merged |= {key(value): value | self.made for value in results}
        rank = lambda value: list(ROWS).index(value["row"]) if value["row"] in ROWS else len(ROWS)
        return sorted(merged.values(), key=rank)

    def write(self, results, left_out, notes):
        peer_notes = self.old.get("peer", {}) | notes
        left_out = sorted({*self.old.get("left_out", []), *left_out})
        value = self.about | {"peer": peer_notes, "left_out": left_out, "results": self.rows(results)}
        common.write_record(self.path, value)


def main():
    args = parse_args()
    chosen, left_out = cases(args)
    record = Record(args)
    if record.load > 0.3:
        print(f"warning: this machine is not quiet: load {record.load}", file=sys.stderr)
    there = set(common.MODELS.glob("*.gguf"))
    results, notes, started = [], {}, time.perf_counter()
    for i, case in enumerate(chosen):
        results += measure(case, args, notes)
        if args.record:
            record.write(results, left_out, notes)
        path = common.model_path(case.shape, case.kind)
        last = all((later.shape, later.kind) != (case.shape, case.kind) for later in chosen[i + 1 :])
        if last and path not in there and not args.keep and path.stat().st_size > LARGE_BYTES:
            path.unlink()
    print(table.markdown(record.rows(results) if args.record else results))
    for line in left_out:
        print(f"left out: {line}")
    if args.record:
        print(f"recorded in {args.record}")
    print(f"{len(chosen)} cases in {(time.perf_counter() - started) / 60:.1f} minutes", file=sys.stderr)


if __name__ == "__main__":
    main()
