"""Training and evaluation of models: the loop, its optimizer, checkpoints and metrics."""
