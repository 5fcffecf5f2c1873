"""The models: DLRM, and DCNv2, which is DLRM with cross layers.

dlrm         Dlrm: bottom MLP, embeddings, interaction, top MLP
config       ModelConfig: the shape of a model. No TensorFlow
mlp          fully connected layers
interaction  the dot interaction, and the choice of its op
cross        the cross interaction of DCN-v2
projection   the projection interaction of TorchRec
"""
