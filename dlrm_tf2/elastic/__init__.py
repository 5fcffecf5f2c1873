"""The supervisor of an elastic job: it starts the ranks with a launcher, and starts them again on what is left.

__main__    the program: `python -m dlrm_tf2.elastic`
supervisor  from one start of the ranks to the next
ranks       what the ranks of one start report, and why they ended
hosts       which hosts have room for how many ranks
launching   the launcher's process
"""
