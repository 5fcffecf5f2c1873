"""Which rank holds which part of which table: numbers in, a plan out. No TensorFlow in this folder.

tables           TableConfig, one embedding table as plain data; the loads that a table puts on a rank
optimizer_state  the optimizers by name, and what each one keeps for the rows of a table
plan             make_plan() and what it returns: a ShardingPlan, which is a list of Shards
plan_rules       PlanRules: the arguments of make_plan, checked
blocks           tables on their way into a plan: cut by rows, then dealt out by columns
placement        how columns are cut and which rank gets which piece: the published strategies, and `balanced`
cost             what a plan costs each rank: bytes, lookups, traffic; how even a plan is
slabs            which shards of a rank share one variable
plan_report      a plan as text
"""
