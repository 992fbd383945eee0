"""How models are trained and evaluated: the loop, its optimizer, checkpoints and metrics."""
