"""MERA on the pocket models: every method on every task, certified or not, compared with the planted truth."""
