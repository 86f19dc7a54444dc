"""Native Sparse Attention in PyTorch: reference, training, evaluation and export."""
