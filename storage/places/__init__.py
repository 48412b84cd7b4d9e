"""Where a store's files lie: in a folder, or in a bucket of an object store."""
