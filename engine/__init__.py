"""Everything around a model: configuration, data, experiments, measurements."""
