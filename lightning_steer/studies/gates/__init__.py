"""What a gate keeps of an effect, and what it spares other prompts, in the pocket model."""
