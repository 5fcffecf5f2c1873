"""The models: DLRM and DCNv2."""
