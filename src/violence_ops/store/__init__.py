"""What a workspace holds, read and written: batches, labels, the catalog, quarantine, tombstones, releases. No step of its own."""
