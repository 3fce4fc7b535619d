"""Detection: its network, its data, its training, its average precision and its pictures."""
