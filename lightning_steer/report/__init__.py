"""Reports, from run folders only: one run's card, figures and tables, and all runs in one table."""
