"""``make pocket``: the small language models that ship, trained, measured against the truth, and described."""
