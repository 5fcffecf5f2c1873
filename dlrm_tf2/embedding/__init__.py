"""Model-parallel embeddings: plain-data tables and plans, local lookup, exchange between ranks, and the layer on top."""
