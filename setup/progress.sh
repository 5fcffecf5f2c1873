# shellcheck shell=bash disable=SC2034,SC2154
# The messages of set-up: one line for each step and its duration, a sign of life during long steps, and at an error
# what to do. Sourced by set_up.sh.

say() { printf 'set-up: %s\n' "$*"; }

# die MESSAGE: prints what is missing and how to get it, and exits.
die() {
    printf '\nset-up stopped: %s\n' "$*" >&2
    exit 1
}

# logged WHAT LOG COMMAND...: runs COMMAND with its output in LOG. Prints every 20 s that it still runs, with the
# percentage if a build prints one. If COMMAND fails, prints the end of LOG and returns the exit code.
logged() {
    local what=$1 log=$2 start=$SECONDS code=0
    shift 2
    mkdir -p "$(dirname "$log")"
    : >"$log"
    say "$what"
    sign_of_life "$log" "$start" $$ 9>&- &
    local pulse=$!
    "$@" >"$log" 2>&1 || code=$?
    kill "$pulse" 2>/dev/null || true
    wait "$pulse" 2>/dev/null || true
    if [ "$code" != 0 ]; then
        printf 'set-up: failed after %s s; the last lines of %s:\n' "$((SECONDS - start))" "$log" >&2
        tail -n 25 "$log" >&2
        return "$code"
    fi
    say "  done in $((SECONDS - start)) s"
}

# Ends when the process that it reports on has ended, so that a killed set-up leaves no process.
sign_of_life() {
    local log=$1 start=$2 parent=$3 ticks=0 percent
    while sleep 1 && kill -0 "$parent" 2>/dev/null; do
        ticks=$((ticks + 1))
        [ $((ticks % 20)) = 0 ] || continue
        percent=$(grep -oE '^ *\[ *[0-9]+%\]' "$log" 2>/dev/null | tail -n 1 | tr -d ' []' || true)
        say "  ... $((SECONDS - start)) s${percent:+, $percent compiled}"
    done
}
