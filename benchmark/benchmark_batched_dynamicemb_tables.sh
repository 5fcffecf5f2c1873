#!/bin/bash
# The published grid of one static and one dynamic table. A table that does not fit in memory is refused, and the next
# one is measured; the status is then 1.
#
#     bash ./benchmark/benchmark_batched_dynamicemb_tables.sh [FLAG ...]
#
# Flags of `python -m dlrm_tf2.dynamic_benchmark tables` may follow, such as --num_iterations 10.
set -u
status=0
for batch_size in 65536 1048576; do
    for units in 8 64; do  # of 2**20 rows
        for optimizer in sgd adam; do
            command=(python -m dlrm_tf2.dynamic_benchmark tables --batch_size "$batch_size"
                --num_embeddings_per_feature "$units" --optimizer_type "$optimizer" --feature_distribution pow-law "$@")
            echo "${command[*]}"
            "${command[@]}" || status=1
        done
    done
done
exit $status
