"""Model-parallel embeddings: tables and plans as plain data, local lookup, exchange between ranks, the layer."""
