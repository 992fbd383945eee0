"""Studies: the paper's experiments, with equal budgets, paired seeds, and a queue kept on disk."""
