#!/bin/sh
# One GPU for each rank of a machine: horovodrun -np 8 examples/hvd_wrapper.sh python3 -m dlrm_tf2.sok_benchmark ...
#
# Sets CUDA_VISIBLE_DEVICES to this rank's number on its machine, and runs the command. The variable stays as it is where
# it is set already, where no launcher gives a number, and where there is no GPU: it is never set to an empty list.
if [ -z "${CUDA_VISIBLE_DEVICES+set}" ]; then
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ')
    for rank in "$HOROVOD_LOCAL_RANK" "$OMPI_COMM_WORLD_LOCAL_RANK" "$MPI_LOCALRANKID" "$SLURM_LOCALID"; do
        case $rank in
            '' | *[!0-9]*) ;;
            *)
                if [ "$gpus" -gt 0 ]; then
                    export CUDA_VISIBLE_DEVICES=$((rank % gpus))
                fi
                break
                ;;
        esac
    done
fi
exec "$@"
