"""DLRM on TensorFlow 2 with model-parallel embeddings. Importing the package does not start TensorFlow."""

__version__ = "0.1.0"
