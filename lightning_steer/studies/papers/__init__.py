"""The four sources on their own models: each in one command, ours beside theirs."""
