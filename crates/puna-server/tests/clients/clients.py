"""The protocols by their real clients, against a running server.

    clients.py PUNA [NODE_FOLDER]

PUNA is the program. NODE_FOLDER is where `npm install` has put the packages of `package.json`; without it the JavaScript
client is left out. Needs the packages of `requirements.txt`. Every server listens on a free port of this machine alone.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx
import huggingface_hub
import ollama
import openai

HERE = pathlib.Path(__file__).parent
KEY = "a-key-for-the-clients"
MODEL = "stories260K"


class Server:
    """A server that ends with the block."""

    def __init__(self, puna, *args):
        # A file, not a pipe: nobody reads the log while requests are made.
        self.log = tempfile.NamedTemporaryFile("w+")
        self.process = subprocess.Popen([puna, "serve", *args], stderr=self.log)
        while True:
            text = pathlib.Path(self.log.name).read_text()
            if found := re.search(r"serving .* at (https?://\S+)/\n", text):
                self.url = found[1]
                return
            if self.process.poll() is not None:
                raise SystemExit(f"no server: {text}")
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, "it drains and ends"


def check(name, condition, found=None):
    if not condition:
        raise SystemExit(f"{name}: {found}")
    print(f"  {name}: ok")


def openai_python(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    check("models", [model.id for model in client.models.list()] == [MODEL])
    messages = [{"role": "user", "content": "Once upon a time"}]
    ask = dict(model=MODEL, messages=messages, max_tokens=30, temperature=0)
    whole = client.chat.completions.create(**ask)
    text = whole.choices[0].message.content
    check("chat", text.startswith(", there was a little girl"), text)
    check("usage", whole.usage.completion_tokens == 30, whole.usage)
    stream = client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check("chat, streamed", joined == text, joined)
    check("usage, streamed", chunks[-1].usage.total_tokens == whole.usage.total_tokens, chunks[-1])
    seeded = [
        client.chat.completions.create(**{**ask, "temperature": 1}, seed=5).choices[0].message.content for _ in range(2)
    ]
    check("seed", seeded[0] == seeded[1] != text, seeded)
    stopped = client.chat.completions.create(**ask, stop=["little"])
    check("stop", stopped.choices[0].message.content == text.split("little")[0], stopped)
    several = client.chat.completions.create(**{**ask, "temperature": 1}, n=3, seed=1)
    check("n", len({choice.message.content for choice in several.choices}) == 3, several)
    logged = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
    entries = logged.choices[0].logprobs.content
    check("logprobs", "".join(e.token for e in entries) == text and len(entries[0].top_logprobs) == 2, entries)
    biased = client.chat.completions.create(**ask, logit_bias={"2": 100})
    check("logit_bias", biased.choices[0].finish_reason == "stop", biased)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    for seed in range(5):
        person = client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=200, seed=seed, response_format=form
        )
        person = json.loads(person.choices[0].message.content)
        check(f"json_schema, seed {seed}", set(person) == {"name", "age"} and 0 <= person["age"] <= 99, person)
    extra = client.chat.completions.create(**ask, extra_body={"grammar": 'start: "yes" | "no"', "top_k": 5, "min_p": 0.01})
    check("grammar", extra.choices[0].message.content in ("yes", "no"), extra)

    done = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=30, temperature=0)
    check("completion", done.choices[0].text == text, done)
    pieces = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=30, temperature=0, stream=True)
    check("completion, streamed", "".join(piece.choices[0].text for piece in pieces) == text)
    vectors = client.embeddings.create(model=MODEL, input=["a cat", "a dog"])
    plain = client.embeddings.create(model=MODEL, input=["a cat", "a dog"], encoding_format="float")
    check("embeddings", [e.embedding for e in vectors.data] == [e.embedding for e in plain.data])
    check("length 1", abs(sum(x * x for x in plain.data[0].embedding) - 1) < 1e-5)

    for name, wrong, error in [
        ("an unknown model", dict(model="gpt-4", messages=messages), openai.NotFoundError),
        ("a wrong temperature", dict(model=MODEL, messages=messages, temperature=-1), openai.BadRequestError),
        ("a long prompt", dict(model=MODEL, messages=[{"role": "user", "content": "cat " * 2000}]), openai.BadRequestError),
    ]:
        try:
            client.chat.completions.create(**wrong)
        except error as raised:
            check(name, raised.status_code in (400, 404) and raised.message, raised)
        else:
            check(name, False, "no error")
    try:
        openai.OpenAI(base_url=f"{url}/v1", api_key="wrong-key", max_retries=0).models.list()
    except openai.AuthenticationError:
        check("a wrong key", True)

    response = client.responses.create(model=MODEL, input="Once upon a time", temperature=0, max_output_tokens=30)
    check("response", response.output_text == text, response)
    check("response, kept", client.responses.retrieve(response.id).output_text == text)
    events = list(client.responses.create(model=MODEL, input="Once upon a time", temperature=0, max_output_tokens=30, stream=True))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    check("response, streamed", deltas == text, [event.type for event in events])
    second = client.responses.create(model=MODEL, input="The end", previous_response_id=response.id, max_output_tokens=5)
    check("response, second turn", second.usage.input_tokens > response.usage.input_tokens, second.usage)
    client.responses.delete(response.id)
    try:
        client.responses.retrieve(response.id)
        check("response, deleted", False)
    except openai.NotFoundError:
        check("response, deleted", True)


def openai_azure(url):
    client = openai.AzureOpenAI(azure_endpoint=url, api_key=KEY, api_version="2024-10-21", max_retries=0)
    messages = [{"role": "user", "content": "Once upon a time"}]
    done = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=5, temperature=0)
    check("chat", done.choices[0].message.content.startswith(", there was"), done)
    check("embeddings", len(client.embeddings.create(model=MODEL, input="x").data[0].embedding) == 64)


def ollama_python(url):
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {KEY}"})
    check("tags", [model.model for model in client.list().models] == [MODEL])
    check("show", client.show(MODEL).modelinfo["llama.context_length"] == 512)
    messages = [{"role": "user", "content": "Once upon a time"}]
    options = {"temperature": 0, "num_predict": 30, "repeat_penalty": 1.0}
    whole = client.chat(model=MODEL, messages=messages, options=options)
    check("chat", whole.message.content.startswith(", there was a little girl") and whole.done, whole)
    pieces = list(client.chat(model=MODEL, messages=messages, options=options, stream=True))
    check("chat, streamed", "".join(p.message.content for p in pieces) == whole.message.content)
    check("counts", pieces[-1].eval_count == 30 and pieces[-1].done_reason == "length", pieces[-1])
    made = client.generate(model=MODEL, prompt="Once upon a time", options=options)
    check("generate", made.response == whole.message.content, made)
    raw = client.generate(model=MODEL, prompt="Once upon a time", options=options, raw=True, stream=True)
    check("generate, raw, streamed", "".join(p.response for p in raw) == whole.message.content)
    schema = {"type": "object", "properties": {"sad": {"type": "boolean"}}, "required": ["sad"], "additionalProperties": False}
    formed = client.chat(model=MODEL, messages=messages, format=schema, options={"num_predict": 100})
    check("format", isinstance(json.loads(formed.message.content)["sad"], bool), formed)
    vectors = client.embed(model=MODEL, input=["a cat", "a dog"]).embeddings
    check("embed", len(vectors) == 2 and len(vectors[0]) == 64)
    try:
        client.chat(model="llama3", messages=messages)
        check("an unknown model", False)
    except ollama.ResponseError as error:
        check("an unknown model", error.status_code == 404, error)
    check("version", "version" in httpx.get(f"{url}/api/version", headers={"api-key": KEY}).json())


def hugging_face(url):
    client = huggingface_hub.InferenceClient(model=url, token=KEY)
    text = client.text_generation("Once upon a time", max_new_tokens=20, details=True)
    check("generate", text.generated_text.startswith(", there was") and text.details.generated_tokens == 20, text)
    pieces = list(client.text_generation("Once upon a time", max_new_tokens=20, details=True, stream=True))
    check("generate_stream", pieces[-1].generated_text == text.generated_text, pieces[-1])
    check("info", httpx.get(f"{url}/info", headers={"api-key": KEY}).json()["max_total_tokens"] == 512)


def sagemaker(url):
    check("ping", httpx.get(f"{url}/ping").status_code == 200)
    for body, read in [
        ({"inputs": "Once upon a time", "parameters": {"max_new_tokens": 5}}, lambda r: r[0]["generated_text"]),
        ({"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}, lambda r: r["choices"][0]["text"]),
        (
            {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 5, "temperature": 0},
            lambda r: r["choices"][0]["message"]["content"],
        ),
    ]:
        reply = httpx.post(f"{url}/invocations", json=body, headers={"api-key": KEY})
        check(f"invocations, {next(iter(body))}", read(reply.json()).startswith(", there was"), reply.text)


def single_argument(puna):
    """SageMaker starts the program with the single argument `serve` and asks at 8080."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8080)) == 0:
            print("  skipped: port 8080 is in use")
            return
    with Server(puna) as server:
        check("port", server.url.endswith(":8080"), server.url)
        check("ping", httpx.get("http://127.0.0.1:8080/ping").status_code == 200)
        again = subprocess.run([puna, "serve"], capture_output=True, text=True)
        check("a port in use suggests another", re.search(r"in use; try --port \d+", again.stderr), again.stderr)


def refusals(puna):
    """What the program says before there is a server."""
    open_host = subprocess.run([puna, "serve", "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True)
    check("no key, open to others", open_host.returncode == 2 and "--api-key-file" in open_host.stderr, open_host.stderr)


def slow_and_rude(url):
    """Half a request, slowly or not at all; and gone in the middle of an answer."""
    host, port = url.removeprefix("http://").split(":")
    for sent in [b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"]:
        with socket.create_connection((host, int(port))) as rude:
            rude.sendall(sent)
    body = json.dumps({"prompt": "Once", "max_tokens": 400, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\napi-key: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    for n_bytes in [0, 1, 300]:
        with socket.create_connection((host, int(port))) as rude:
            rude.sendall(head.encode() + body)
            if n_bytes:
                rude.recv(n_bytes)
    deadline = time.time() + 20
    while time.time() < deadline:
        numbers = httpx.get(f"{url}/metrics", headers={"api-key": KEY}).text
        if 'puna_requests_running{model="stories260K"} 0' in numbers:
            break
        time.sleep(0.05)
    check("places are free again", 'puna_cache_blocks_held{model="stories260K"} 0' in numbers, numbers)


def draining(puna, keys):
    """What was begun is answered after SIGTERM."""
    server = Server(puna, MODEL, "--port", "0", "--api-key-file", keys)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    stream = client.completions.create(model=MODEL, prompt="Once", max_tokens=400, stream=True, temperature=0)
    pieces = [next(stream)]
    server.process.send_signal(signal.SIGTERM)
    pieces.extend(stream)
    check("the whole answer", pieces[-1].choices[0].finish_reason in ("length", "stop"), pieces[-1])
    check("then the end", server.process.wait(30) == 0)


def schemathesis(url):
    """Requests made from `/openapi.json`: none may end in 5xx."""
    program = shutil.which("schemathesis", path=str(pathlib.Path(sys.executable).parent)) or "schemathesis"
    command = [
        program, "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {KEY}",
        "--checks", "not_a_server_error", "--max-examples", "10", "--seed", "1", "--no-color", "--request-timeout", "30",
        "--phases", "coverage,fuzzing",
    ]
    # It leaves files where it runs.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    check("no 5xx", done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:])


def javascript(url, folder):
    env = {**os.environ, "PUNA_URL": url, "PUNA_KEY": KEY}
    script = shutil.copy(HERE / "clients.mjs", folder)
    done = subprocess.run(["node", script], env=env, capture_output=True, text=True)
    print(done.stdout, end="")
    check("openai for JavaScript", done.returncode == 0, done.stderr)


def main():
    puna = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        keys = f"{folder}/keys.txt"
        pathlib.Path(keys).write_text(f"# for this run\n{KEY}\n")
        with Server(puna, MODEL, "--port", "0", "--api-key-file", keys) as server:
            for test in [openai_python, openai_azure, ollama_python, hugging_face, sagemaker, slow_and_rude]:
                print(test.__name__)
                test(server.url)
            if len(sys.argv) > 2:
                print("javascript")
                javascript(server.url, sys.argv[2])
            print("schemathesis")
            schemathesis(server.url)
        print("draining")
        draining(puna, keys)
    for test in [single_argument, refusals]:
        print(test.__name__)
        test(puna)


main()
