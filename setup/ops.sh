# shellcheck shell=bash disable=SC2034,SC2154
# The op library, built again when its sources, TensorFlow or the compilers change. Sourced by set_up.sh.
# Nothing here stops set-up: without the library everything runs in TensorFlow's own ops.

# Everything that makes a finished build out of date, as text.
ops_fingerprint() {
    printf '%s\n' "$tensorflow_package $TENSORFLOW python ${python_is%.*} $(type -P g++ cmake make nvcc | tr '\n' ' ')${CUDA_ARCHITECTURES:-}"
    find dlrm_tf2/ops \( -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.cmake' -o -name CMakeLists.txt -o -name build.py \) \
        -print0 | sort -z | xargs -0 sha256sum
}

# Builds once per fingerprint, also when it fails: the reason is said again at each set-up, the attempt is not made again.
build_ops() {
    local done_file=.venv/ops_done
    if [ ! -f "$done_file" ] || [ "$(sed 1d "$done_file")" != "$(ops_fingerprint)" ]; then
        say 'building the op library, half a minute'
        { .venv/bin/python dlrm_tf2/ops/build.py || true; } >"$done_file.new" 2>&1
        # One line: empty when it was built.
        { tail -n 1 "$done_file.new" | tr -d '\n'; echo; ops_fingerprint; } >"$done_file.newer"
        rm -f "$done_file.new"
        mv "$done_file.newer" "$done_file"
    fi
    if [ -n "$(head -n 1 "$done_file")" ]; then say "$(head -n 1 "$done_file")"; fi
}
