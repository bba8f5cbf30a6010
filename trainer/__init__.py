"""What does a run compute? The TransKD models, losses, data and training loop, in plain PyTorch."""
