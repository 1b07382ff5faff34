"""Labelled tasks on which a model errs, as MERA repairs them."""
