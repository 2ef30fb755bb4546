"""Compares two folders of golden files: python compare.py COMMITTED NEW

Floats computed by a network may differ in their last bits between machines; all else must be equal.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def same_arrays(a, b):
    """Equal names and integers; floats within 1e-5 of the largest."""
    a, b = load_file(a), load_file(b)
    if a.keys() != b.keys():
        return False
    return all(
        np.abs(a[k] - b[k]).max() <= 1e-5 * np.abs(a[k]).max()
        if a[k].dtype == np.float32 and a[k].shape == b[k].shape
        else np.array_equal(a[k], b[k])
        for k in a
    )


def same_json(a, b):
    """Equal but for `margin`, a float that tells how sure a result is; other floats within 1e-5."""
    forget = lambda pairs: {k: v for k, v in pairs if k != "margin"}
    read = lambda path: json.loads(path.read_text(), object_pairs_hook=forget)
    return same_values(read(a), read(b))


def same_values(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-5 * max(1, abs(a))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_values(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_values, a, b))
    return a == b


def same(a, b):
    if not b.exists():
        return False
    if a.read_bytes() == b.read_bytes():
        return True
    if a.suffix == ".json":
        return same_json(a, b)
    return a.name.startswith("golden") and same_arrays(a, b)


def main():
    old, new = Path(sys.argv[1]), Path(sys.argv[2])
    files = [p for p in sorted(old.rglob("*")) if p.is_file() and "scripts" not in p.parts]
    different = [p for p in files if not same(p, new / p.relative_to(old))]
    for path in different:
        print(f"differs: {path}")
    print(f"{len(files)} golden files, {len(different)} differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
