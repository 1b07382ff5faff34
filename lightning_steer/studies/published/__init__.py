"""What others published about steering, judged from the outcomes that they released."""
