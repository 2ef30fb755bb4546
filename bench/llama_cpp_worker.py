"""llama.cpp's side of one measurement, in a process of its own: a job as JSON in, figures as JSON out.

The library is called directly (`llama_decode` on a `llama_batch` that is filled before the clock starts); no logits are
copied and nothing is sampled, but in the run to the first token, which draws one as an answer needs it. Threads of the
library end with the process, so none of them spins while Puna is measured.
"""

import gc
import json
import random
import statistics
import sys
import time
from pathlib import Path

import llama_cpp as llama

N_BATCH = 512


class Batch:
    """A batch that is filled once and whose tokens and positions then move on."""

    def __init__(self, n_seqs=1):
        self.raw = llama.llama_batch_init(N_BATCH, 0, 1)
        self.n_seqs = n_seqs

    def prompt(self, tokens, pos, seq, wants_last):
        for i, token in enumerate(tokens):
            self.set(i, token, pos + i, seq, wants_last and i + 1 == len(tokens))
        self.raw.n_tokens = len(tokens)
        return self.raw

    def step(self, token, pos):
        """One token of each sequence."""
        for seq in range(self.n_seqs):
            self.set(seq, token, pos, seq, True)
        self.raw.n_tokens = self.n_seqs
        return self.raw

    def set(self, i, token, pos, seq, wanted):
        batch = self.raw
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, pos, 1, wanted
        batch.seq_id[i][0] = seq


def memory_kb(key):
    """`VmHWM`, the peak, or `VmRSS`, what is resident now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {key}")


def load(job):
    model = llama.llama_model_load_from_file(job["path"].encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {job['path']}")
    return model


def context(model, job, seq_len, n_seqs):
    """Defaults, f16 cache and flash attention as the library chooses, but for lengths and threads."""
    params = llama.llama_context_default_params()
    # The library pads a sequence to 256 positions itself.
    params.n_ctx, params.n_seq_max = n_seqs * -(-seq_len // 256) * 256, n_seqs
    params.n_batch = params.n_ubatch = N_BATCH
    params.n_threads = params.n_threads_batch = job["threads"]
    ctx = llama.llama_init_from_model(model, params)
    if not ctx:
        raise SystemExit("llama.cpp cannot make a context")
    return ctx


def decode(ctx, raw):
    """Seconds of one pass."""
    start = time.perf_counter()
    code = llama.llama_decode(ctx, raw)
    llama.llama_synchronize(ctx)
    secs = time.perf_counter() - start
    if code != 0:
        raise SystemExit(f"llama_decode: {code}")
    return secs


def read(ctx, batch, tokens, pos, seq=0):
    """Seconds of a prompt, in passes of `N_BATCH`."""
    secs = 0.0
    for i in range(0, len(tokens), N_BATCH):
        part = tokens[i : i + N_BATCH]
        secs += decode(ctx, batch.prompt(part, pos + i, seq, i + len(part) == len(tokens)))
    return secs


def ready(model, job, n_seqs):
    """A context whose sequences hold `depth` tokens, and that ran once; its batch and tokens."""
    seq_len = job["depth"] + max(job["prompt"], job["answer"])
    ctx, batch = context(model, job, seq_len, n_seqs), Batch(n_seqs)
    n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    rng = random.Random(0)
    tokens = [rng.randrange(n_vocab) for _ in range(seq_len)]
    read(ctx, batch, tokens[:1], 0)
    forget(ctx, 0)
    for seq in range(n_seqs):
        read(ctx, batch, tokens[: job["depth"]], 0, seq)
    return ctx, batch, tokens


def forget(ctx, pos):
    """All positions from `pos` on, of every sequence."""
    llama.llama_memory_seq_rm(llama.llama_get_memory(ctx), -1, pos, -1)


def answer(ctx, batch, tokens, job):
    """Tokens a second of all sequences, in the median pass."""
    depth, n = job["depth"], job["answer"]
    secs = [decode(ctx, batch.step(tokens[pos], pos)) for pos in range(depth, depth + n)]
    return batch.n_seqs / statistics.median(secs)


def speeds(job):
    """As `puna bench` measures: prefill, decode, and decode of several sequences, each from `depth` on."""
    model = load(job)
    ctx, batch, tokens = ready(model, job, 1)
    figures = {"prefill": None, "decode": None, "parallel": {}}
    depth, prompt = job["depth"], job["prompt"]
    if prompt:
        secs = []
        for _ in range(job["repeats"]):
            secs.append(read(ctx, batch, tokens[depth : depth + prompt], depth))
            forget(ctx, depth)
        figures["prefill"] = prompt / statistics.median(secs)
    if job["answer"]:
        figures["decode"] = answer(ctx, batch, tokens, job)
    figures["call_us"] = call_us(ctx)
    llama.llama_free(ctx)
    for n_seqs in job["parallel"]:
        ctx, batch, tokens = ready(model, job, n_seqs)
        figures["parallel"][n_seqs] = answer(ctx, batch, tokens, job)
        llama.llama_free(ctx)
    return figures


def call_us(ctx):
    """Microseconds that Python adds to a pass: two calls of the library that have nothing to do."""
    n = 10_000
    start = time.perf_counter()
    for _ in range(n):
        llama.llama_synchronize(ctx)
        llama.llama_n_ctx(ctx)
    return (time.perf_counter() - start) / n * 1e6


def generate(job):
    """From just before the model is loaded to the first token; and the memory that took, without Python's own."""
    before_kb, start = memory_kb("VmRSS"), time.perf_counter()
    model, ids = load(job), job["ids"]
    ctx, batch = context(model, job, job["ctx"], 1), Batch()
    sampler = llama.llama_sampler_init_greedy()
    read(ctx, batch, ids, 0)
    token = llama.llama_sampler_sample(sampler, ctx, -1)
    first_secs = time.perf_counter() - start
    for pos in range(len(ids), len(ids) + job["answer"] - 1):
        decode(ctx, batch.step(token, pos))
        token = llama.llama_sampler_sample(sampler, ctx, -1)
    return {"first_secs": first_secs, "peak_bytes": (memory_kb("VmHWM") - before_kb) * 1024}


def main():
    job = json.loads(sys.argv[1])
    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, None)
    llama.llama_backend_init()
    gc.disable()
    figures = generate(job) if "ids" in job else speeds(job)
    figures["version"] = llama.__version__
    figures["system"] = llama.llama_print_system_info().decode().strip()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
