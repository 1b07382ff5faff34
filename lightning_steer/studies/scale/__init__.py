"""The main findings repeated on a pocket model of five times the size."""
