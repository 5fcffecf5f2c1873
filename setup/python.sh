# shellcheck shell=bash disable=SC2034,SC2154
# Which Python makes the virtual environment, and whether an existing environment can be kept. Sourced by set_up.sh.

# python_version COMMAND: prints "3.11.7" and so on, nothing where COMMAND does not run.
python_version() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || true; }

supported() { [[ $1 == 3.11.* || $1 == 3.12.* ]]; }

# Sets `python` (a command) and `python_is` (its full version). The user's choice comes first, then the Python of an
# existing .venv, then 3.11, then 3.12.
choose_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        python=$PYTHON
        python_is=$(python_version "$python")
        [ -n "$python_is" ] || die "PYTHON=$PYTHON does not run. Give a Python 3.11 or 3.12: make setup PYTHON=/path/to/python3.11"
        supported "$python_is" || die "PYTHON=$PYTHON is Python $python_is; this project needs 3.11 or 3.12."
        return
    fi
    for candidate in .venv/bin/python python3.11 python3.12 python3; do
        command -v "$candidate" >/dev/null || continue
        python=$candidate
        python_is=$(python_version "$candidate")
        if supported "$python_is"; then return; fi
    done
    die "no Python 3.11 or 3.12 found (looked for python3.11, python3.12 and python3; python3 is: $(python3 -V 2>&1 || true)).
  Debian 12, Ubuntu 24.04:  apt-get install python3 python3-venv
  then run the same make command again, or name another one: make setup PYTHON=/path/to/python3.11"
}

# Keeps a .venv that works and was made in this folder for this Python and this TensorFlow; otherwise makes a new one.
make_environment() {
    local wanted="$root python-$python_is $tensorflow_package-$TENSORFLOW" why=
    if [ ! -e .venv ]; then
        why='there is no .venv yet'
    elif [ ! -f .venv/pyvenv.cfg ]; then
        die ".venv exists but is not a virtual environment. Move it away and run the same command again."
    elif ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        why='the existing one is broken or half made'
    elif [ "$(python_version .venv/bin/python)" != "$python_is" ]; then
        why="the existing one has Python $(python_version .venv/bin/python)"
    elif [ -f .venv/made_for ] && [ "$(cat .venv/made_for)" != "$wanted" ]; then
        why='it was made for other settings or in another folder'
    fi
    if [ -n "$why" ]; then
        check_python_can_make_environments
        check_disk_space
        say "making .venv with Python $python_is ($why), 5 s"
        if [ -e .venv ]; then
            # The chosen Python may be in the old .venv: find the Python that made it before it is removed.
            python=$("$python" -c 'import sys; print(sys._base_executable)')
            rm -rf .venv
        fi
        "$python" -m venv .venv || die "$python -m venv .venv failed (above)."
    fi
    forget_half_installed_packages
    printf '%s\n' "$wanted" >.venv/made_for
}

# pip writes a package's RECORD last. Without one it takes the package for installed, yet can neither use nor replace it.
forget_half_installed_packages() {
    local package
    for package in .venv/lib/python3.*/site-packages/*.dist-info; do
        if [ -d "$package" ] && [ ! -f "$package/RECORD" ]; then rm -rf "$package"; fi
    done
}

check_python_can_make_environments() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python ($python_is) cannot make virtual environments: its venv module is not installed.
  Debian, Ubuntu:  apt-get install python3-venv     (or python${python_is%.*}-venv)"
}

check_disk_space() {
    local needed_mb=3000 free_mb
    [ "$GPU" = 1 ] && needed_mb=12000
    free_mb=$(df -Pm . | awk 'NR == 2 {print $4}')
    [ "$free_mb" -ge "$needed_mb" ] ||
        die "$root: $free_mb MB of disk space are free, about $needed_mb MB are needed for .venv. Free some, then run it again."
}
