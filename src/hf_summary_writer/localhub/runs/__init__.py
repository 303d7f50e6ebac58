"""Training runs in a repo or bucket, as its page shows them."""
