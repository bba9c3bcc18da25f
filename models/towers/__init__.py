"""What every model trained by gradient steps in torch shares: the loop, its checkpoints, and the way to ONNX."""
