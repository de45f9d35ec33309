#!/bin/sh
# exit_code.sh RUN COMMAND… : does COMMAND, and ends with the exit code of the run instead of the launcher's.
#
# torchrun ends with 1 whatever its processes ended with; RUN/status.json has their code (docs/running.md).
# For a scheduler that restarts only on codes from 128 up, INTERRUPTED_CODE=143 replaces 75, "interrupted and saved".
run=$1
shift
start=$(mktemp) || exit 74
trap 'rm -f "$start"' EXIT
"$@"
code=$?
[ "$code" -eq 0 ] && exit 0
if [ "$run/status.json" -nt "$start" ]; then # not what an earlier attempt ended with
  own=$(sed -n 's/.*"exit_code": *\([0-9][0-9]*\).*/\1/p' "$run/status.json")
  code=${own:-$code}
fi
[ "$code" -eq 75 ] && code=${INTERRUPTED_CODE:-75}
exit "$code"
