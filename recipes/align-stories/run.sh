#!/bin/sh
# A chat model like the built-in one, from texts and dialogues to judged answers, in 31 minutes on two cores of an AMD EPYC (Zen 5):
#
#   recipes/align-stories/run.sh TEXTS CHATS OUT [SEED [again]]
#
# With `again` it is the next version of the built-in chat model that is made, not a first one of the built-in base model.
# TEXTS and CHATS hold public texts and dialogues under the names that xtask/src/stories gives; OUT gets the configurations,
# with the seed, the data, a folder for each stage in `run`, its answers to the held-out prompts, and `judged.txt`. Stopped,
# it goes on where it was.
set -eu
{ [ $# -ge 3 ] && [ $# -le 5 ] && [ "${5:-again}" = again ]; } || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$3"
texts=$(cd "$1" && pwd) chats=$(cd "$2" && pwd) out=$(cd "$3" && pwd) seed=${4:-0}
cd "$(dirname "$0")/../.."
cargo build --release --quiet --package puna --package xtask
puna=$PWD/target/release/puna xtask=$PWD/target/release/xtask
stories() { "$xtask" stories "$@"; }
if [ ! -e "$out/plan.toml" ]; then
    for file in recipes/align-stories/[!p]*.toml recipes/align-stories/ppo.toml; do
        { echo "seed = $seed"; cat "$file"; } > "$out/${file##*/}"
    done
    cp recipes/align-stories/plan.toml "$out/plan.toml.new"
    if [ "${5:-}" = again ]; then
        # One stage in the place of the first two.
        sed -i '/^name = "copy"$/,/^name = "sft"$/c name = "sft"' "$out/plan.toml.new"
        mv "$out/again.toml" "$out/sft.toml"
    fi
    mv "$out/plan.toml.new" "$out/plan.toml"
fi
[ -e "$out/data/sft.jsonl" ] || stories prepare --text "$texts" --chat "$chats" --out "$out/data"
cd "$out"
last() { ls -d "run/$1/checkpoints"/step-* | tail -n 1; }
align() {
    if [ -e run/config.toml ]; then resume=--resume; else resume=; fi
    "$puna" align plan.toml --out run $resume
}

if [ ! -e data/helpfulness.jsonl ]; then
    # The plan ends at its reward models, whose pairs do not exist yet.
    align || [ -e run/sft/done ]
    head -n 2500 data/prompts.jsonl > prompts-pairs.jsonl
    "$puna" answer "$(last sft)" --prompts prompts-pairs.jsonl --out pairs.jsonl -k 4 -n 260 --temperature 1 --top-p 1 --seed "$seed"
    stories pairs --answers pairs.jsonl --helpfulness data/helpfulness.jsonl --safety data/safety.jsonl
fi
align
for stage in sft gatt rejection ppo; do
    "$puna" answer "$(last $stage)" --prompts data/held-out.jsonl --out answers-$stage.jsonl -n 260
done
"$puna" answer "$(last sft)" --prompts data/held-out.jsonl --out answers-best.jsonl -n 260 -k 8 --temperature 1 --top-p 1 \
    --helpfulness "$(last helpfulness)" --safety "$(last safety)"
for n in 1 2 4 8; do
    stories join --out answers-best-of-$n.jsonl --best-of $n answers-best.jsonl
done
stories judge --requests data/held-out.jsonl --human data/human.jsonl --json judged.json answers-sft.jsonl answers-gatt.jsonl \
    answers-rejection.jsonl answers-ppo.jsonl answers-best-of-[1248].jsonl > judged.txt
cat judged.txt
