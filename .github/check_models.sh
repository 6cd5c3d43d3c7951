#!/usr/bin/env bash
# Checks models for blocks that can be fused: what action.yml runs.
#
#     check_models.sh REPORT        writes REPORT.json of one model, REPORT.jsonl of many
#
# Reads MODELS and OPTIONS (one a line), CHANGED_ONLY and BASE; needs acb-fuse and git.
set -euo pipefail
report=$1

lines() { [[ -z $1 ]] || printf '%s\n' "$1" | sed '/^[[:space:]]*$/d'; }

mapfile -t models < <(lines "$MODELS")
mapfile -t options < <(lines "$OPTIONS")
if [[ $CHANGED_ONLY == true && -n ${BASE:-} ]]; then
    # A shallow clone has no base.
    git cat-file -e "$BASE^{commit}" 2> /dev/null || git fetch --quiet --depth=1 origin "$BASE"
    mapfile -d '' -t models < <(
        git diff -z --name-only --diff-filter=d "$BASE" -- "${models[@]}" | { grep --null-data '\.onnx$' || true; })
fi
for model in ${models[@]+"${models[@]}"}; do
    [[ -e $model ]] || { echo "$model: there is no such file or folder" >&2; exit 8; }
done
mapfile -d '' -t models < <([[ ${#models[@]} == 0 ]] || find "${models[@]}" -name '*.onnx' -type f -print0 | sort -z)
case ${#models[@]} in
0) echo "no model to look at"; exit 0 ;;
1) report+=.json ;;
*) report+=.jsonl ;;
esac
[[ -z ${GITHUB_OUTPUT:-} ]] || echo "report=$report" >> "$GITHUB_OUTPUT"
code=0
lines=$(acb-fuse --check --report "$report" ${options[@]+"${options[@]}"} -- "${models[@]}" 2>&1) || code=$?
printf '%s\n' "$lines"
[[ -z ${GITHUB_STEP_SUMMARY:-} ]] || printf '### acb-fuse\n\n```text\n%s\n```\n' "$lines" >> "$GITHUB_STEP_SUMMARY"
exit "$code"
