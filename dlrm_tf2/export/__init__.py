"""A checkpoint in forms that other programs read.

__main__.py     the program: `python -m dlrm_tf2.export`
npy.py          plain .npy files
sorted_keys.py  the keys of a dynamic table, for readers that search
nvidia.py       NVIDIA's folders sparse/ and dense/
saved_model.py  a TensorFlow SavedModel; the only file here that imports TensorFlow
"""
