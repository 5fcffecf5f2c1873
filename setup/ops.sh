# shellcheck shell=bash disable=SC2034,SC2154
# Builds the op library again when its sources, TensorFlow or the compilers change. Sourced by set_up.sh.
# A failed build does not stop set-up: without the library everything runs in TensorFlow's own ops.

# Everything that makes a finished build out of date, as text.
ops_fingerprint() {
    printf '%s\n' "$tensorflow_package $TENSORFLOW python ${python_is%.*} $(type -P g++ cmake make nvcc | tr '\n' ' ')${CUDA_ARCHITECTURES:-}"
    find dlrm_tf2/ops \( -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.cmake' -o -name CMakeLists.txt -o -name build.py \) \
        -print0 | sort -z | xargs -0 sha256sum
}

# Builds once per fingerprint. A failed build is not tried again, but each set-up prints its reason.
build_ops() {
    local done_file=.venv/ops_done
    if [ ! -d dlrm_tf2/ops ]; then
        say 'the sources of the op library (dlrm_tf2/ops) are not here yet: the next set-up builds it'
        return
    fi
    if [ ! -f "$done_file" ] || [ "$(sed 1d "$done_file")" != "$(ops_fingerprint)" ]; then
        say 'building the op library, half a minute'
        { .venv/bin/python dlrm_tf2/ops/build.py || true; } >"$done_file.new" 2>&1
        # The first line: empty after a successful build.
        { tail -n 1 "$done_file.new" | tr -d '\n'; echo; ops_fingerprint; } >"$done_file.newer"
        rm -f "$done_file.new"
        mv "$done_file.newer" "$done_file"
    fi
    if [ -n "$(head -n 1 "$done_file")" ]; then say "$(head -n 1 "$done_file")"; fi
}
