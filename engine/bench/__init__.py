"""Speed against LongCTR's and FuxiCTR's own code, in the same run: ``python -m engine.bench``."""
