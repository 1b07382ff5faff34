"""MERA on the pocket models: every method on every task, certified or not, beside what was planted."""
