"""Building blocks that know nothing of FuxiCTR: they import torch only."""
