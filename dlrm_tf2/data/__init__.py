"""A dataset's files -> batches of samples for one rank.

batches       RankData: the batches of a split for one rank, from any position on
array_pool    batches in memory that is used again
file_watch    files that change while they are read
fingerprint   whether two datasets have the same content
repeated_ids  which features repeat their ids so often that fetching each row once is faster
"""
