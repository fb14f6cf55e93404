"""Training of diffusion bridges: recipes, data, the loss, checkpoints and the loop. PyTorch is imported on use only."""
