"""Mode train: the steps of a run, and everything between two steps.

trainer       Trainer: the loop over the steps
step          TrainingStep: one compiled step on all ranks
schedule      the learning rate of each step
departures    between which steps keys leave for their age or their small weights
divergence    the table that a diverged model names
loss_scaling  the factor of the loss in float16
run_length    the first and the last step of a run, and the steps before an evaluation
resume        whether a run is new, or an interrupted run that is resumed
saver         the checkpoints of a run: where they go and which are kept
progress      the lines of the log, the live line, the summary
"""
