#!/bin/sh
# A chat model like the built-in one, from texts and dialogues to judged answers, in less than an hour on two cores of an AMD EPYC (Zen 5):
#
#   recipes/align-stories/run.sh TEXTS CHATS OUT [SEED [again]]
#
# With `again` it is the next version of the built-in chat model that is made, not a first one of the built-in base model.
# TEXTS and CHATS hold public texts and dialogues under the names that xtask/src/stories gives; OUT gets the configurations,
# with the seed, the data, a folder for each stage in `run`, its answers to the held-out prompts as they are drawn by default and
# (`hot`) at a temperature of 1, and `judged.txt`. Stopped, it goes on where it was.
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
align() {
    if [ -e run/config.toml ]; then resume=--resume; else resume=; fi
    "$puna" align plan.toml --out run $resume
}

if [ ! -e data/helpfulness.jsonl ]; then
    # The plan ends at its reward models, whose pairs do not exist yet.
    align || [ -e run/sft/done ]
    # And all that are unsafe: few of their answers go wrong.
    unsafe='"is_safety":true'
    grep "$unsafe" data/prompts.jsonl > data/unsafe.jsonl
    { head -n 4000 data/prompts.jsonl; tail -n +4001 data/prompts.jsonl | grep "$unsafe"; } > prompts-pairs.jsonl.new
    mv prompts-pairs.jsonl.new prompts-pairs.jsonl
    "$puna" answer run/sft --prompts prompts-pairs.jsonl --out pairs.jsonl -k 4 -n 260 --temperature 1 --top-p 1 --seed "$seed"
    stories pairs --answers pairs.jsonl --helpfulness data/helpfulness.jsonl --safety data/safety.jsonl
fi
align
hot="--temperature 1 --top-p 1"
for stage in sft gatt rejection ppo; do
    "$puna" answer run/$stage --prompts data/held-out.jsonl --out answers-$stage.jsonl -n 260
    "$puna" answer run/$stage --prompts data/held-out.jsonl --out hot-$stage.jsonl -n 260 $hot
done
"$puna" answer run/sft --prompts data/held-out.jsonl --out answers-best.jsonl -n 260 -k 8 $hot \
    --helpfulness run/helpfulness --safety run/safety
for n in 1 2 4 8; do
    stories join --out hot-best-of-$n.jsonl --best-of $n answers-best.jsonl
done
for kind in answers hot; do
    files="$kind-sft.jsonl $kind-gatt.jsonl $kind-rejection.jsonl $kind-ppo.jsonl"
    [ $kind = answers ] || files="$files $(echo hot-best-of-[1248].jsonl)"
    stories judge --requests data/held-out.jsonl --human data/human.jsonl --json judged-$kind.json $files
done > judged.txt
cat judged.txt
