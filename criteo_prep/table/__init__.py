"""Any click log that a schema describes -> a tf_raw dataset.

The same stages, id rule, layout and manifest as of Criteo's logs (criteo_prep.preprocess); what differs is that columns
have names and types that the user gives. docs/own_data.md is the page for users.
"""
