"""Read FuxiCTR's YAML files, check the parameters of an experiment, and find its model class."""
