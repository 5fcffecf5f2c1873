# shellcheck shell=bash disable=SC2034,SC2154
# A Horovod wheel for exactly this TensorFlow, Python and transport: from the user's cache, or built from the source
# distribution and kept in the cache. Sourced by set_up.sh.

# Sets `wheel_folder`. Its name has everything that the compiled library depends on, and the number of this recipe. Raise
# the number when a change of the recipe changes the built library.
choose_wheel_folder() {
    local recipe=1 platform key
    platform=$(.venv/bin/python -c 'import platform, sysconfig; print(sysconfig.get_platform() + "-" + "".join(platform.libc_ver()))')
    key="horovod-$pinned_horovod-$tensorflow_package-$TENSORFLOW-python-${python_is%.*}-gloo${mpi:+-$mpi}"
    [ "$GPU" = 1 ] && key+="-nccl-$nccl_version-cuda-$cuda_version-sm-${CUDA_ARCHITECTURES:-80,90}"
    wheel_folder="${XDG_CACHE_HOME:-$HOME/.cache}/criteo-dlrm/$key-$platform-recipe-$recipe"
    if [ -n "$WHEELHOUSE" ]; then take_wheel_from_wheelhouse; fi
}

# Installs Horovod; builds it if the cache has no wheel. A cached wheel that does not load is built again, once.
install_horovod() {
    choose_wheel_folder
    if [ -n "$(wheel_in_cache)" ]; then
        say "Horovod $pinned_horovod: using the wheel built before, $wheel_folder"
        if install_wheel; then return; fi
        say 'that wheel does not load here: building it again'
        rm -f "$wheel_folder"/*.whl
    fi
    make_wheel
    install_wheel || die "Horovod was built but does not load (above). Run again with HOROVOD=0 to work with one process."
}

# Builds the wheel if the cache has none. Two clones of the same user build one wheel, not two.
make_wheel() {
    mkdir -p "$wheel_folder"
    exec 8>"$wheel_folder/lock"
    flock -n 8 || { say 'another set-up is building the same Horovod wheel: waiting for it'; flock 8; }
    if [ -z "$(wheel_in_cache)" ]; then build_wheel; fi
    exec 8>&-
}

wheel_in_cache() { find "$wheel_folder" -maxdepth 1 -name '*.whl' 2>/dev/null | head -n 1; }

install_wheel() {
    logged 'installing Horovod' .venv/log/horovod_install.txt \
        .venv/bin/python -m pip install --no-deps --force-reinstall "$(wheel_in_cache)" || return 1
    if [ "$GPU" = 1 ]; then logged 'pointing Horovod to NCCL' .venv/log/nccl.txt point_to_own_nccl || return 1; fi
    logged 'loading Horovod' .venv/log/horovod_load.txt .venv/bin/python -c "
import horovod.tensorflow as hvd
assert hvd.gloo_built(), 'built without gloo'
assert hvd.mpi_built() or not '$mpi', 'built without MPI'
assert hvd.nccl_built() or '$GPU' != '1', 'built without NCCL'"
}

build_wheel() {
    local scratch jobs memory_gb code=0 minutes='about 3'
    local -a settings
    check_build_tools
    rm -rf "${wheel_folder:?}"/build.* # left by a build that was killed
    scratch=$(mktemp -d "$wheel_folder/build.XXXXXX")
    # One compiler job takes up to 2 GB of memory.
    memory_gb=$(awk '/MemTotal/ {print int($2 / 1048576)}' /proc/meminfo)
    jobs=$(nproc)
    [ "$jobs" -le $((memory_gb / 2)) ] || jobs=$((memory_gb / 2 > 0 ? memory_gb / 2 : 1))
    # CMAKE_POLICY_VERSION_MINIMUM: gloo's CMakeLists.txt asks for a version that CMake 4 no longer knows.
    settings=("MAKEFLAGS=-j$jobs" CMAKE_POLICY_VERSION_MINIMUM=3.5 "PATH=$root/.venv/bin:$PATH"
        HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1)
    if [ -n "$mpi" ]; then settings+=(HOROVOD_WITH_MPI=1); else settings+=(HOROVOD_WITHOUT_MPI=1); fi
    if [ "$GPU" = 1 ]; then
        minutes='about 5'
        mapfile -t -O ${#settings[@]} settings < <(build_environment_for_gpu "$scratch/include")
    elif tensorflow_lacks_xla_headers; then
        write_empty_xla_headers "$scratch/include"
        settings+=("CXXFLAGS=-I$scratch/include")
    fi
    logged "building Horovod $pinned_horovod for TensorFlow $TENSORFLOW, gloo${mpi:+ and $mpi}: $minutes minutes on 2 cores, once for all clones" \
        "$root/.venv/log/horovod_build.txt" env "${settings[@]}" .venv/bin/python -m pip wheel "${pip_sources[@]}" -v --no-deps --no-cache-dir \
        --no-build-isolation --no-binary horovod -w "$scratch" "horovod==$pinned_horovod" || code=$?
    if [ "$code" = 0 ]; then mv "$scratch"/*.whl "$wheel_folder/"; fi
    rm -rf "$scratch"
    [ "$code" = 0 ] || die "Horovod could not be built (above; all of it in .venv/log/horovod_build.txt).
  Run the same command again once that is repaired, or work with one process: make setup HOROVOD=0"
}

# Runs before anything is downloaded. A cached wheel needs no compiler.
check_build_tools() {
    local tool missing=
    if [ "$GPU" = 0 ]; then
        choose_wheel_folder
        if [ -n "$(wheel_in_cache)" ]; then return; fi
        if [ -n "$WHEELHOUSE" ]; then say "WHEELHOUSE=$WHEELHOUSE has no Horovod wheel for this machine (${wheel_folder##*/}): it must be built"; fi
    fi
    for tool in gcc g++ cmake make; do command -v "$tool" >/dev/null || missing+=" $tool"; done
    [ -z "$missing" ] || die "building Horovod needs:$missing
  Debian, Ubuntu:  apt-get install gcc g++ cmake make
  then run the same command again, or work with one process: make setup HOROVOD=0"
}

# From 2.19 on, TensorFlow's wheel leaves out headers that Horovod includes for its XLA operations.
tensorflow_lacks_xla_headers() { case $TENSORFLOW in 2.15.* | 2.16.* | 2.17.* | 2.18.*) return 1 ;; esac; }

# Only GPU builds compile these operations, so on a CPU an empty file of each name is enough.
write_empty_xla_headers() {
    local header
    for header in tf2xla/xla_op_kernel.h tf2xla/xla_op_registry.h xla/client/xla_builder.h \
        xla/service/custom_call_target_registry.h xla/service/hlo.pb.h xla/shape.h xla/xla_data.pb.h; do
        mkdir -p "$1/tensorflow/compiler/$(dirname "$header")"
        echo '#pragma once' >"$1/tensorflow/compiler/$header"
    done
}
