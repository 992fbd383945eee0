"""A trained model of use: scores of new rows, and metrics on other data."""
