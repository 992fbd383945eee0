"""What trained weights show: sessions, the experts of an item, and themes."""
