"""Xet's content-addressed storage: chunks in xorbs, and shards that say which chunks make up a file."""
