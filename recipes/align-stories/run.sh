#!/bin/sh
# The built-in chat model again, from texts and dialogues to judged answers, in about an hour on two cores:
#
#   recipes/align-stories/run.sh TEXTS CHATS OUT
#
# TEXTS and CHATS hold public texts and dialogues under the names that xtask/src/stories gives; OUT gets a folder for each
# stage, and `judged.txt`. Stopped, it goes on where it was.
set -eu
[ $# -eq 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$3"
texts=$(cd "$1" && pwd) chats=$(cd "$2" && pwd) out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cargo build --release --quiet --package puna
puna=$PWD/target/release/puna data=$here/data
last() { ls -d "$out/$1/checkpoints"/step-* | tail -n 1; }
align() {
    if [ -e "$out/config.toml" ]; then resume=--resume; else resume=; fi
    "$puna" align "$here/plan.toml" --out "$out" $resume
}

[ -e "$data/sft.jsonl" ] || cargo xtask stories prepare --text "$texts" --chat "$chats" --out "$data"
if [ ! -e "$data/helpfulness.jsonl" ]; then
    # The plan ends at its reward models, whose pairs do not exist yet.
    align || [ -e "$out/sft/done" ]
    head -n 2200 "$data/prompts.jsonl" > "$out/prompts-pairs.jsonl"
    "$puna" answer "$(last sft)" --prompts "$out/prompts-pairs.jsonl" --out "$out/pairs.jsonl" \
        -k 4 -n 260 --temperature 0.9
    cargo xtask stories pairs --answers "$out/pairs.jsonl" \
        --helpfulness "$data/helpfulness.jsonl" --safety "$data/safety.jsonl"
fi
align
for stage in sft gatt rejection ppo; do
    "$puna" answer "$(last $stage)" --prompts "$data/held-out.jsonl" --out "$out/$stage.jsonl" -n 260
done
cargo xtask stories judge --requests "$data/held-out.jsonl" --human "$data/human.jsonl" --json "$out/judged.json" \
    "$out/sft.jsonl" "$out/gatt.jsonl" "$out/rejection.jsonl" "$out/ppo.jsonl" > "$out/judged.txt"
cat "$out/judged.txt"
