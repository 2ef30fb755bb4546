"""Puna's server beside llama.cpp's, on the same file, one after the other in one run.

    bench/serve.py --puna target/release/puna --model llama-2-7b.Q4_0.gguf [--llama-server llama-server]
        [--streams 1,8,64] [--rounds 3] [--prompt-tokens 200] [--tokens 64] [--threads N]

Both get the same requests: `/v1/completions`, streamed, greedy, each prompt of its own words after a beginning that all
share. For each number of streams the script tells tokens a second of all together, the time to the first token (median
and 95th percentile), the time from a token to the next, and whether an answer was lost. Without --llama-server, Puna alone.
Then, of Puna alone: the server's CPU time a token beyond the engine's (`puna bench` on the same file), and its memory
before and after many requests (--requests).
"""

import argparse
import http.client
import json
import pathlib
import re
import statistics
import subprocess
import tempfile
import threading
import time

WORDS = "the sun was warm and a small dog ran to the old tree where birds sang of rain".split()


def prompt(idx, n_words):
    words = [WORDS[(idx * 7 + i * (idx % 5 + 1)) % len(WORDS)] for i in range(n_words // 2)]
    return " ".join([WORDS[i % len(WORDS)] for i in range(n_words // 2)] + words)


class Server:
    """A process that serves until the block ends."""

    def __init__(self, name, command, port_pattern):
        self.name = name
        self.log = tempfile.NamedTemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.time() + 600
        while not (found := re.search(port_pattern, pathlib.Path(self.log.name).read_text())):
            if self.process.poll() is not None or time.time() > deadline:
                raise SystemExit(f"{name} did not start:\n{pathlib.Path(self.log.name).read_text()[-2000:]}")
            time.sleep(0.1)
        self.port = int(found[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def cpu_secs(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def memory_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


def stream(port, body):
    """Times at which text came, from the request on; and whether the stream ended as it should."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    times, is_whole = [], False
    for line in response:
        if line.startswith(b"data: [DONE]"):
            is_whole = True
        elif line.startswith(b"data: ") and json.loads(line[6:])["choices"][0].get("text"):
            times.append(time.perf_counter() - start)
    connection.close()
    return times, is_whole and response.status == 200


def measure(server, n_streams, args, seed):
    results = [None] * n_streams
    body = {"max_tokens": args.tokens, "temperature": 0, "stream": True}

    def run(idx):
        results[idx] = stream(server.port, {**body, "prompt": prompt(seed * 1000 + idx, args.prompt_tokens)})

    threads = [threading.Thread(target=run, args=(idx,)) for idx in range(n_streams)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    firsts = sorted(times[0] for times, _ in results if times)
    gaps = [b - a for times, _ in results for a, b in zip(times, times[1:])]
    return {
        "tokens_per_sec": sum(len(times) for times, _ in results) / wall,
        "first_median": statistics.median(firsts),
        "first_95": firsts[min(len(firsts) - 1, len(firsts) * 95 // 100)],
        "gap": statistics.median(gaps) if gaps else 0.0,
        "lost": sum(not is_whole for _, is_whole in results),
    }


def compare(servers, args):
    for n_streams in args.streams:
        for server in servers:
            rounds = [measure(server, n_streams, args, seed) for seed in range(args.rounds)]
            best = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
            print(
                f"{server.name:13}{n_streams:4} streams  {best['tokens_per_sec']:8.1f} tokens/s  first token "
                f"{best['first_median']:.3f} s, 95% {best['first_95']:.3f} s  then {best['gap'] * 1e3:.1f} ms  "
                f"lost {sum(r['lost'] for r in rounds)}"
            )


def overhead(server, args):
    """Memory over many requests, and the server's CPU time a token beyond what the engine takes alone."""
    body = {"prompt": "Once upon a time", "max_tokens": 64, "temperature": 0, "stream": True}
    stream(server.port, body)
    cpu, memory, n_tokens = server.cpu_secs(), server.memory_mb(), 0
    for _ in range(args.requests):
        n_tokens += len(stream(server.port, body)[0])
    served = (server.cpu_secs() - cpu) / max(n_tokens, 1)
    print(f"served: {served * 1e6:.0f} us of CPU a token; memory {memory:.1f} MB, then {server.memory_mb():.1f} MB")
    command = [args.puna, "bench", args.model, "-p", "0", "-n", "64", "--threads", "1", "--json"]
    print(f"the engine alone: {' '.join(command)}")
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puna", default="target/release/puna")
    parser.add_argument("--llama-server")
    parser.add_argument("--model", default="stories260K")
    parser.add_argument("--streams", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=200)
    args = parser.parse_args()
    threads = ["--threads", str(args.threads)]
    puna = [args.puna, "serve", args.model, "--port", "0", *threads]
    with Server("puna", puna, r"serving .* at http://[^:]*:(\d+)/") as server:
        compare([server], args)
        overhead(server, args)
    if args.llama_server:
        slots = max(args.streams)
        command = [args.llama_server, "-m", args.model, "--port", "18080", "-np", str(slots), *threads]
        command += ["-c", str(slots * (args.prompt_tokens * 2 + args.tokens))]
        with Server("llama-server", command, r"listening on http://[^:]*:(\d+)") as server:
            compare([server], args)


main()
