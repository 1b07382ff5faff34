"""Help and misspelt options, answered from a file before torch and Lightning are imported."""
