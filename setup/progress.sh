# shellcheck shell=bash disable=SC2034,SC2154
# How set-up talks: one line for what is done and about how long it takes, a sign of life during long steps, and an
# end that says what to do. Sourced by set_up.sh.

say() { printf 'set-up: %s\n' "$*"; }

# die MESSAGE: says what is missing and how to get it, and ends.
die() {
    printf '\nset-up stopped: %s\n' "$*" >&2
    exit 1
}

# logged WHAT LOG COMMAND...: runs COMMAND with its output in LOG, saying every 20 s that it is still at work, and how
# far where a build prints percentages. When it fails, shows the end of LOG and returns its exit code.
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

# Ends by itself when the process that it reports on is gone, so that a killed set-up leaves nothing behind.
sign_of_life() {
    local log=$1 start=$2 parent=$3 ticks=0 percent
    while sleep 1 && kill -0 "$parent" 2>/dev/null; do
        ticks=$((ticks + 1))
        [ $((ticks % 20)) = 0 ] || continue
        percent=$(grep -oE '^ *\[ *[0-9]+%\]' "$log" 2>/dev/null | tail -n 1 | tr -d ' []' || true)
        say "  ... $((SECONDS - start)) s${percent:+, $percent compiled}"
    done
}
