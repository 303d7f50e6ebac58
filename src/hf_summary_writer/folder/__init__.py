"""One folder on this disk: its changed files, their stable content, the ledger, the lease. Knows no network."""
