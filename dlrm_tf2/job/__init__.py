"""From a command line to a job that runs.

program     what every program does around its work: connect the ranks, report errors, return an exit status
planning    the plan that the flags ask for, and its text
preflight   the memory that a run needs, counted before anything is allocated
memories    the memories of the machine and the GPU that a rank compares with it
start       the model on all ranks, new or restored, and the mode that runs it
"""
