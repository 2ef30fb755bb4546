"""Writes testdata/data/messages.parquet and preferences.parquet by pyarrow: dialogues and pairs as Parquet has them,
lists of structures in a column. The test that reads them has the same texts.

Run: python testdata/scripts/chat_golden.py
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

OUT = Path(__file__).resolve().parent.parent / "data"
MESSAGE = pa.struct({"content": pa.string(), "role": pa.string()})


def message(role, content):
    return {"content": content, "role": role}


def main():
    dialogues = [
        [message("user", "A fox?"), message("assistant", "Zoë.")],
        [message("system", "Be kind."), message("user", "3 eggs"), message("assistant", "“Hey ho!”\n\nSo it was. 🐟")],
        [message("user", "And then?"), message("assistant", " ")],
        [message("user", "1"), message("assistant", "2"), message("user", "3"), message("assistant", "4")],
        None,
    ]
    table = pa.table({
        "id": pa.array(range(5), pa.int32()),
        "messages": pa.array(dialogues, pa.list_(MESSAGE)),
        "source": pa.array(["tales", None, None, None, None]),
    })  # fmt: skip
    pyarrow.parquet.write_table(table, OUT / "messages.parquet", compression="zstd", row_group_size=2)
    table = pa.table({
        "prompt": pa.array([[message("user", "Tell me more.")]] * 3, pa.list_(MESSAGE)),
        "chosen": pa.array(["Once more.", "Yes.", "No."]),
        "rejected": pa.array(["No.", "Yes.", "Yes."]),
        "strength": pa.array([3, 1, None], pa.int64()),
        "safety": pa.array(["both_safe", None, None]),
    })  # fmt: skip
    pyarrow.parquet.write_table(table, OUT / "preferences.parquet", compression="snappy", data_page_version="2.0")


main()
