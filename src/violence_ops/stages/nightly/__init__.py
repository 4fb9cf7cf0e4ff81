"""From the inbox to sealed batches."""
