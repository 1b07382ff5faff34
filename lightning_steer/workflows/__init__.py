"""From pairs to a vector: fit, search, steer and judge, in Python and on the command line."""
