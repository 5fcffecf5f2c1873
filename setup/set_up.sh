#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154
# Makes .venv: this project's packages, TensorFlow, and Horovod over Open MPI or gloo. Called by every make target; about
# a second when nothing is left to do. Interrupted at any point, it is repaired by running it again: each step may be
# repeated, and .venv/set_up_done is written last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
for part in progress python mpi cuda horovod ops wheelhouse; do
    # shellcheck source=/dev/null
    . "setup/$part.sh"
done

done_file=.venv/set_up_done
launcher_file=.venv/launcher # what starts several processes here: mpi, gloo or none; read by demo/run.py

main() {
    choose_pip_sources
    choose_python
    if is_set_up; then
        build_ops
        say_complete
        return
    fi
    take_turns
    if is_set_up; then # by another set-up, while this one waited
        build_ops
        say_complete
        return
    fi
    rm -f "$done_file"
    if [ "$GPU" = 1 ]; then find_cuda; fi
    make_environment
    remember_settings
    if [ "$HOROVOD" = 0 ]; then
        say 'Horovod left out (HOROVOD=0): training runs in one process'
        install_packages
        echo none >"$launcher_file"
    else
        choose_mpi
        check_build_tools
        install_packages
        if [ "$GPU" = 1 ]; then find_nccl; fi
        install_horovod
        choose_launcher
    fi
    fingerprint >"$done_file.new"
    mv "$done_file.new" "$done_file"
    build_ops
    say_complete
}

say_complete() {
    say "complete in $SECONDS s (Python $python_is, $tensorflow_package $TENSORFLOW, several processes: $(cat "$launcher_file"))"
}

# A setting that is not on the command line keeps its last value, so that `make setup GPU=1` is given once. WHEELHOUSE is
# not remembered: it changes where packages come from, not what is installed.
read_settings() {
    local name remembered
    for name in GPU TENSORFLOW MPI HOROVOD; do
        remembered=$(sed -n "s/^$name=//p" .venv/settings 2>/dev/null || true)
        [ -n "${!name:-}" ] || printf -v "$name" '%s' "$remembered"
    done
    pinned_tensorflow=$(sed -nE 's/^ *tensorflow-cpu==([0-9.]+)$/\1/p' setup.cfg)
    pinned_horovod=$(sed -nE 's/^ *horovod==([0-9.]+)$/\1/p' setup.cfg)
    : "${GPU:=0}" "${TENSORFLOW:=$pinned_tensorflow}" "${MPI:=1}" "${HOROVOD:=1}" "${WHEELHOUSE:=}"
    for name in GPU MPI HOROVOD; do
        [[ ${!name} == [01] ]] || die "$name=${!name}: expected 0 or 1."
    done
    [[ $TENSORFLOW =~ ^2\.[0-9]+\.[0-9]+$ ]] || die "TENSORFLOW=$TENSORFLOW: expected a full version such as $pinned_tensorflow."
    if [ "$GPU" = 1 ]; then tensorflow_package=tensorflow; else tensorflow_package="tensorflow-cpu"; fi
}

remember_settings() { printf '%s\n' "GPU=$GPU" "TENSORFLOW=$TENSORFLOW" "MPI=$MPI" "HOROVOD=$HOROVOD" >.venv/settings; }

# Everything that makes a finished set-up out of date, as text.
fingerprint() {
    printf '%s\n' "$root" "python $python_is" "GPU=$GPU TENSORFLOW=$TENSORFLOW MPI=$MPI HOROVOD=$HOROVOD" "$(openmpi_version)"
    sha256sum setup.cfg setup/*.sh
}

is_set_up() { [ -f "$done_file" ] && [ -x .venv/bin/python ] && [ "$(cat "$done_file")" = "$(fingerprint)" ]; }

# One set-up at a time in this folder. A process that ends gives up its lock, so a killed run leaves no lock.
take_turns() {
    command -v flock >/dev/null || die 'the command flock is missing. Debian, Ubuntu: apt-get install util-linux'
    exec 9>.venv.lock
    flock -n 9 || { say 'another set-up is running in this folder: waiting for it'; flock 9; }
}

# Sets `tensorflow`, the requirement, and `packages`, everything that is installed before this project.
list_packages() {
    local setuptools=65.5.0
    tensorflow=$tensorflow_package==$TENSORFLOW
    if [ "$GPU" = 1 ]; then tensorflow="tensorflow[and-cuda]==$TENSORFLOW"; fi
    # Horovod's build script needs an old setuptools; 65.5 does not run on Python 3.12.
    if [[ $python_is == 3.12.* ]]; then setuptools=69.5.1; fi
    packages=("setuptools==$setuptools" wheel cloudpickle psutil packaging "$tensorflow")
}

install_packages() {
    list_packages
    logged "installing ${tensorflow/==/ } and the other packages: one or two minutes, $([ "$GPU" = 1 ] && echo 6 || echo 1.5) GB" \
        .venv/log/packages.txt .venv/bin/python -m pip install "${pip_sources[@]}" "${packages[@]}" ||
        die "$(why_pip_failed .venv/log/packages.txt)"
    # Without build isolation, which would download setuptools again.
    logged 'installing this project and its development tools, a minute, 0.5 GB' .venv/log/project.txt \
        .venv/bin/python -m pip install "${pip_sources[@]}" --no-build-isolation "$tensorflow" -e '.[dev]' ||
        die "$(why_pip_failed .venv/log/project.txt)"
}

# Starts two processes for a test. A machine whose MPI is installed but cannot launch then uses gloo from now on, and does
# not fail at the first training.
choose_launcher() {
    local launcher
    for launcher in ${mpi:+mpi} gloo; do
        if logged "starting two processes with $launcher, about 10 s" .venv/log/two_ranks.txt \
            env PATH="$root/.venv/bin:$PATH" timeout 180 \
            .venv/bin/horovodrun -np 2 -H localhost:2 "--$launcher" .venv/bin/python setup/two_ranks.py; then
            echo "$launcher" >"$launcher_file"
            return
        fi
        say "two processes do not start with $launcher (above)"
    done
    die 'Horovod is installed, but two processes cannot start here. Work with one: make setup HOROVOD=0'
}

read_settings
if [ "${1:-}" = wheelhouse ]; then make_wheelhouse; else main; fi
