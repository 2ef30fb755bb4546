#!/bin/sh
# The stages of a chat model with several seeds: a folder for each in OUT, as run.sh makes them, and their answers judged
# together, each stage beside the one before it (the first beside none):
#
#   recipes/align-stories/seeds.sh TEXTS CHATS OUT SEED...
#
# A prompt counts by the mean over the seeds, so that the intervals are those of prompts. Folders that are there already, made on
# this machine or another, are taken as they are, or go on where they were.
set -eu
[ $# -ge 4 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
texts=$1 chats=$2
mkdir -p "$3"
out=$(cd "$3" && pwd)
shift 3
here=$(cd "$(dirname "$0")" && pwd)
for seed; do
    [ -e "$out/$seed/judged-hot.json" ] || "$here/run.sh" "$texts" "$chats" "$out/$seed" "$seed"
done
xtask=$here/../../target/release/xtask
cd "$out"
for kind in answers hot; do
    before=
    for stage in sft gatt rejection ppo; do
        files=
        for seed; do files="$files $seed/$kind-$stage.jsonl"; done
        "$xtask" stories join --out $kind-$stage.jsonl $files
        "$xtask" stories judge --requests "$1/data/held-out.jsonl" --human "$1/data/human.jsonl" \
            --json judged-$kind-$stage.json $before $kind-$stage.jsonl
        before=$kind-$stage.jsonl
    done
done > judged.txt
