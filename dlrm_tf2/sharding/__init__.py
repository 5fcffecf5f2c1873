"""Which rank holds which part of which table: numbers in, a plan out. No TensorFlow in this folder."""
