"""A checkpoint in the forms that other programs read: .npy files, NVIDIA's folders, a SavedModel."""
