# shellcheck shell=bash disable=SC2034,SC2154
# The transport of Horovod between processes: Open MPI where it is installed or can be installed; and always gloo, which
# is part of Horovod and needs nothing else. Sourced by set_up.sh.

# Prints "openmpi-4.1.4" where Open MPI can both build (mpicxx) and launch (mpirun); nothing otherwise.
openmpi_version() {
    command -v mpirun >/dev/null && command -v mpicxx >/dev/null || return 0
    mpirun --version 2>/dev/null | sed -nE '1s/^mpirun \(Open MPI\) ([0-9.]+).*/openmpi-\1/p'
}

# Sets `mpi`: the output of openmpi_version, empty for gloo alone. Installs Open MPI where that needs no password.
choose_mpi() {
    local as_root=
    mpi=
    if [ "$MPI" = 0 ]; then
        say 'Open MPI left out (MPI=0): processes talk over gloo'
        return
    fi
    mpi=$(openmpi_version)
    if [ -n "$mpi" ]; then return; fi
    if [ -n "$WHEELHOUSE" ]; then
        say 'no Open MPI (mpirun, mpicxx), and with WHEELHOUSE it is not installed: processes will talk over gloo, which works, slower'
        return
    fi
    if ! command -v apt-get >/dev/null; then
        say 'no Open MPI (mpirun, mpicxx) and no apt-get to install it with: processes will talk over gloo, which works, slower'
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            say 'no Open MPI, and not root to install it: processes will talk over gloo, which works, slower.'
            say '  For MPI: sudo apt-get install libopenmpi-dev openmpi-bin, then make setup'
            return
        fi
        as_root='sudo -n'
    fi
    # numactl is not needed, but the published commands use it.
    if logged 'installing Open MPI with apt-get (libopenmpi-dev openmpi-bin numactl), about 20 s' .venv/log/openmpi.txt \
        apt_get_openmpi "$as_root"; then
        mpi=$(openmpi_version)
    fi
    if [ -z "$mpi" ]; then say 'Open MPI could not be installed: processes will talk over gloo, which works, slower'; fi
}

apt_get_openmpi() {
    # $1 is empty or a command with its option, so it must split.
    # shellcheck disable=SC2086
    $1 apt-get update && $1 env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends libopenmpi-dev openmpi-bin numactl
}
