"""Pictures for training and evaluation: where they lie and how they become tensors."""
