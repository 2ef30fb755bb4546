"""The server under load: beside llama.cpp's own `llama-server` on the same file, and alone.

    python bench/serve.py --llama-server PATH [--rows peer,overhead,streams,memory] [--rounds 5] [--threads 2] [--record]

peer      1 and 8 clients stream answers of 64 tokens to prompts of 128 words that share nothing, greedily, the end of text
          ignored, from both servers in turn; `--file` for another model than 1.1 billion random parameters in Q4_0
overhead  the server's CPU time a token beyond that of `puna generate` for the same tokens, one stream, one thread
streams   200 streams opened at once on the default model: all must come to their end
memory    20,000 requests of all kinds on the smallest model, after as many: resident memory as they go

Without --llama-server Puna alone runs in `peer` too. `bench/README.md` says what else is meant by the figures.
"""

import argparse
import http.client
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import common

ROWS = ("peer", "overhead", "streams", "memory")
CLIENTS = (1, 8)
N_WORDS, N_TOKENS = 128, 64
# At 8 clients: tokens a second of both servers, and times to the first token.
TARGETS = {"tokens_per_sec": 1.7, "first_token": 0.5}
OVERHEAD_LIMIT_US = 50
WORDS = (
    "the sun was warm and a small dog ran to old tree where birds sang of rain she said that he would go with her into "
    "town by river then they saw boat which had no sail so one two three men took oars for day or night until it came"
).split()


class Server:
    """A process that serves on a port of its own until the block ends."""

    def __init__(self, name, command):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        self.log = tempfile.NamedTemporaryFile("w+")
        command = [str(part) for part in (*command, "--port", self.port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.time() + 600
        while not self.is_ready():
            if self.process.poll() is not None or time.time() > deadline:
                raise SystemExit(f"{' '.join(command)} does not serve:\n{Path(self.log.name).read_text()[-2000:]}")
            time.sleep(0.1)

    def is_ready(self):
        try:
            return ask(self.port, "GET", "/health", None)[0] == 200
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def cpu_secs(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def ask(port, method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, text


def stream(port, body, n_events=None):
    """Seconds to the first text and to the end, and the usage that the server told; nothing if it did not end as it should.
    After `n_events` the client goes away."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = body | {"stream": True, "stream_options": {"include_usage": True}}
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    first = usage = None
    for idx, line in enumerate(connection.getresponse()):
        if line.startswith(b"data: [DONE]"):
            connection.close()
            return first, time.perf_counter() - start, usage
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            if first is None and event["choices"] and event["choices"][0].get("text"):
                first = time.perf_counter() - start
        if n_events is not None and idx >= n_events:
            break
    connection.close()
    return None


def together(n, work):
    """Runs `work(0)` to `work(n - 1)`, all at the same time."""
    with ThreadPoolExecutor(n) as pool:
        barrier = threading.Barrier(n)

        def run(idx):
            barrier.wait()
            return work(idx)

        return list(pool.map(run, range(n)))


def prompt(seed, n_words=N_WORDS):
    words = random.Random(seed)
    return " ".join(words.choice(WORDS) for _ in range(n_words))


def measure(server, n_clients, round_idx):
    """One round: what all clients together got, and how long they waited."""
    body = {"max_tokens": N_TOKENS, "temperature": 0, "ignore_eos": True}
    ask_one = lambda idx: stream(server.port, body | {"prompt": prompt(f"{n_clients} {round_idx} {idx}")})
    start = time.perf_counter()
    found = together(n_clients, ask_one)
    wall = time.perf_counter() - start
    if None in found:
        raise SystemExit(f"{server.name} lost an answer")
    n_tokens = sum(usage["completion_tokens"] for *_, usage in found)
    if n_tokens != n_clients * N_TOKENS:
        raise SystemExit(f"{server.name} answered {n_tokens} tokens, not {n_clients} times {N_TOKENS}")
    return {
        "tokens_per_sec": n_tokens / wall,
        "first_token": statistics.median(first for first, *_ in found),
        "prompt_tokens": sum(usage["prompt_tokens"] for *_, usage in found),
    }


def peer(args):
    path = args.file or common.synth("tinyllama-1.1b", "q4_0", args.puna)
    threads = ["--threads", args.threads]
    # Random weights repeat themselves as no real text does, so nothing is drafted.
    commands = {"puna": [args.puna, "serve", path, "--draft", 0]}
    if args.llama_server:
        slots = ["-np", max(CLIENTS), "-c", max(CLIENTS) * 512]
        commands["llama-server"] = [args.llama_server, "-m", path, *slots]
    with ExitStack() as stack:
        threads = ["--threads", args.threads]
        servers = [stack.enter_context(Server(name, [*command, *threads])) for name, command in commands.items()]
        return [beside(servers, n_clients, args) | {"file": Path(path).name} for n_clients in CLIENTS]


def beside(servers, n_clients, args):
    """What so many clients get from each server, in turn."""
    found = {server.name: [] for server in servers}
    for round_idx in range(-1, args.rounds):
        # The one that begins changes; the first round warms both up.
        for server in servers[:: 1 if round_idx % 2 else -1]:
            found[server.name].append(measure(server, n_clients, round_idx))
    row = {"row": "peer", "clients": n_clients}
    for name, rounds in found.items():
        figures = {key: [one[key] for one in rounds[1:]] for key in TARGETS}
        row[name] = {key: common.summary(values, 3) for key, values in figures.items()}
        row[name]["prompt_tokens"] = rounds[1]["prompt_tokens"]
    if "llama-server" in found:
        pairs = list(zip(found["puna"][1:], found["llama-server"][1:]))
        row["ratio"] = {key: common.summary([ours[key] / theirs[key] for ours, theirs in pairs]) for key in TARGETS}
        if n_clients > 1:
            row["target"] = TARGETS
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def generated_secs(args, model, n_tokens):
    """CPU time of the program that writes so many tokens."""
    command = [args.puna, "generate", model, "Once upon a time", "-n", n_tokens, "--temperature", 0, "--threads", 1]
    command += ["--draft", 0, "--logit-bias", "2=-100", "--ctx", 512]
    before = os.times()
    common.run(*command)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def overhead(args):
    """The server's CPU time a token beyond the program's own: the same tokens, one stream, so that each is sent alone."""
    rows, n_tokens = [], 448
    for model in ("stories7m", "stories260K"):
        body = {"prompt": "Once upon a time", "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True}
        alone, served = [], []
        with Server("puna", [args.puna, "serve", model, "--threads", 1, "--draft", 0, "--ctx", 512]) as server:
            stream(server.port, body)
            for _ in range(args.rounds):
                # Both less what a single token takes, which is starting and reading the prompt.
                n_times = 12 if model == "stories7m" else 40
                long = sum(generated_secs(args, model, n_tokens) for _ in range(n_times))
                short = sum(generated_secs(args, model, 1) for _ in range(n_times))
                alone.append((long - short) / n_times / (n_tokens - 1))
                cpu = server.cpu_secs()
                for _ in range(n_times):
                    stream(server.port, body)
                served.append((server.cpu_secs() - cpu) / n_times / n_tokens)
        us = lambda values: common.summary([value * 1e6 for value in values], 1)
        row = {"row": "overhead", "model": model, "engine_us": us(alone), "served_us": us(served)}
        row["overhead_us"] = us([a - b for a, b in zip(served, alone)])
        row["limit_us"] = OVERHEAD_LIMIT_US
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def streams(args):
    """Streams opened at once; those that find no free sequence wait."""
    n, n_tokens = 200, 100
    with Server("puna", [args.puna, "serve", "--threads", args.threads]) as server:
        body = {"max_tokens": n_tokens, "ignore_eos": True}
        start = time.perf_counter()
        found = together(n, lambda idx: stream(server.port, body | {"prompt": prompt(idx, 8), "seed": idx}))
        wall = time.perf_counter() - start
        whole = [one for one in found if one and one[2]["completion_tokens"] == n_tokens]
        row = {"row": "streams", "streams": n, "lost": n - len(whole)}
        row["tokens_per_sec"] = round(len(whole) * n_tokens / wall)
        row["first_token"] = common.summary([first for first, *_ in whole])
        row["memory_mb"] = round(server.memory_mb(), 1)
    print(json.dumps(row), file=sys.stderr, flush=True)
    return [row]


def one_of_many(port, idx):
    """A request of one kind or another, and what is expected of it."""
    body = {"prompt": prompt(idx, 6), "max_tokens": 4, "seed": idx}
    match idx % 8:
        case 0:
            return stream(port, body) is not None
        case 1:
            return stream(port, body | {"max_tokens": 200}, n_events=2) is None
        case 2:
            return ask(port, "POST", "/v1/completions", body | {"temperature": -1})[0] == 400
        case 3:
            chat = {"messages": [{"role": "user", "content": body["prompt"]}], "max_tokens": 4}
            return ask(port, "POST", "/v1/chat/completions", chat)[0] == 200
        case 4:
            return ask(port, "POST", "/v1/embeddings", {"input": body["prompt"]})[0] == 200
        case 5:
            form = {"grammar": 'start: "yes" | "no"', "n": 2}
            return ask(port, "POST", "/v1/completions", body | form)[0] == 200
        case 6:
            return ask(port, "POST", "/v1/responses", {"input": body["prompt"], "max_output_tokens": 4})[0] == 200
        case _:
            return ask(port, "POST", "/api/generate", {"prompt": body["prompt"], "options": {"num_predict": 4}})[0] == 200


def memory(args):
    """Resident memory while requests of all kinds come and go, after as many that fill what has a limit: the cache, which is
    small here, and the responses that are kept."""
    n_each, resident, n_wrong = args.requests // 10, [], 0
    command = [args.puna, "serve", "stories260K", "--threads", 1, "--max-concurrent", 8]
    with Server("puna", command) as server, ThreadPoolExecutor(4) as pool:
        start = time.perf_counter()
        for tenth in range(20):
            kinds = pool.map(lambda idx: one_of_many(server.port, idx), range(tenth * n_each, (tenth + 1) * n_each))
            n_wrong += sum(not as_expected for as_expected in kinds)
            resident.append(round(server.memory_mb(), 1))
        row = {"row": "memory", "requests": 10 * n_each, "unexpected": n_wrong}
        row |= {"filling_mb": resident[:10], "resident_mb": resident[10:]}
        row["requests_per_sec"] = round(20 * n_each / (time.perf_counter() - start))
    print(json.dumps(row), file=sys.stderr, flush=True)
    return [row]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puna", type=Path, default=common.PUNA)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--rows", default=",".join(ROWS), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--record", action="store_true", help="write bench/record/DATE-CPU-serve.json")
    args = parser.parse_args()
    args.rows = args.rows.split(",")
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"--rows: {', '.join(sorted(unknown))}; expected some of {', '.join(ROWS)}")
    measures = {"peer": peer, "overhead": overhead, "streams": streams, "memory": memory}
    results = [found for row in args.rows for found in measures[row](args)]
    record = common.about(args.threads) | {"load": round(os.getloadavg()[0], 1), "results": results}
    if args.llama_server:
        command = [args.llama_server, "--version"]
        version = subprocess.run(command, capture_output=True, text=True)
        record["peer"] = (version.stdout + version.stderr).strip().splitlines()[0]
    if args.record:
        path = common.record_path("serve")
        if path.exists():
            kept = json.loads(path.read_text())
            others = [row for row in kept["results"] if row["row"] not in args.rows]
            record = kept | record | {"results": others + results}
        common.write_record(path, record)
        print(f"recorded in {path.relative_to(common.ROOT)}", file=sys.stderr)
    else:
        print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
