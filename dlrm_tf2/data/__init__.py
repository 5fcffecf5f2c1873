"""A dataset's files -> batches of samples for one rank.

batches       RankData: the batches of a split for one rank, from any position on
array_pool    batches in memory that is used again
file_watch    files that change while they are read
provided      a dataset whose samples a program provides
day_files     TorchRec's files of each day, in place
sample_parts  samples held in memory, repeated, or with several ids in place of one
torchrec_data  the samples of TorchRec's example
fingerprint   whether two datasets have the same content
repeated_ids  which features repeat their ids so often that fetching each row once is faster
"""
