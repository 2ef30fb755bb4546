"""Writes testdata/data: a table of small tales as Parquet by pyarrow, in every compression that it has in common with
Puna, and the tales' ids by sentencepiece with the built-in model's vocabulary.

Run: python testdata/scripts/data_golden.py
"""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import sentencepiece

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "testdata" / "data"
TOKENIZER = ROOT / "models" / "stories260K.tokenizer.model"

WHO = ["A fox", "The old miller", "Zoë", "A very small bear"]
WHAT = ["lost a red boot", "found 3 eggs — all blue", "went to sea"]
HOW = ["and nobody knew why.", "and sang: “Hey ho!”\n\nSo it was. 🐟"]


def main():
    tales = [f"{who} {what} {how}" for who in WHO for what in WHAT for how in HOW]
    books = [f"Book {i // 5}" for i in range(len(tales))]
    table = pyarrow.table({
        "words": pyarrow.array([tale.split() for tale in tales]),
        "book": pyarrow.array(books),
        "n": pyarrow.array(range(len(tales)), pyarrow.int32()),
        "text": pyarrow.array(tales),
    })
    OUT.mkdir(exist_ok=True)
    for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
        # Pages and row groups of a few rows; version 2 pages for one of the files.
        pyarrow.parquet.write_table(table, OUT / f"{codec}.parquet", compression=codec, row_group_size=7,
            use_dictionary=["book"], data_page_version="2.0" if codec == "zstd" else "1.0")
    model = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
    ids = [[model.bos_id(), *model.encode(tale), model.eos_id()] for tale in tales]
    golden = {"books": books, "ids": ids}
    (OUT / "ids.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
