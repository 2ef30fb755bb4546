"""What the scripts of this folder share: where the program is, models of random weights, this machine, records."""

import datetime
import json
import platform
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PUNA = ROOT / "target" / "release" / "puna"
RECORDS = ROOT / "bench" / "record"
MODELS = ROOT / "target" / "bench"


def run(*command):
    """Runs a program to its end and returns what it wrote to standard output."""
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nexited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def model_path(shape, kind):
    return MODELS / f"{shape}-{kind}.gguf"


def synth(shape, kind, puna=PUNA):
    """A model of random weights, written unless it is there."""
    path = model_path(shape, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        run(puna, "synth", "--shape", shape, "--type", kind, path)
    return path


def summary(values, digits=2):
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in figures.items()}


def cpu_info(key):
    """The first value of `key` in /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def machine():
    return cpu_info("model name") or platform.processor() or platform.machine()


def cpu_flags():
    """The instruction sets that matter here."""
    wanted = ("avx", "fma", "f16c", "amx", "asimd", "bf16", "i8mm", "sve")
    flags = cpu_info("flags") or cpu_info("Features")
    return sorted(flag for flag in flags.split() if flag.startswith(wanted))


def commit():
    """The commit, with `-dirty` where tracked files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def today():
    return datetime.date.today().isoformat()


def record_path(topic):
    name = "-".join(machine().replace("(R)", "").lower().split())
    return RECORDS / f"{today()}-{name}-{topic}.json"


def about(threads):
    """What every record begins with."""
    return {"date": today(), "commit": commit(), "cpu": machine(), "flags": cpu_flags(), "threads": threads}


def write_record(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
