"""From FuxiCTR's YAML files to the checked parameters and the model class of an experiment."""
