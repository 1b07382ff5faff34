"""``make pocket``: train the small language models that ship, measure them against the truth, write their cards."""
