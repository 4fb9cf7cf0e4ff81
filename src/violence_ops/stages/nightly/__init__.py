"""From the inbox to sealed batches, and what brings refused clips back."""
