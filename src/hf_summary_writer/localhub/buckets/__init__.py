"""Storage buckets: files by path, without revisions, all of them in Xet's storage."""
