"""What a run will cost, before anything is downloaded or loaded: memory, computation, time, and files."""
