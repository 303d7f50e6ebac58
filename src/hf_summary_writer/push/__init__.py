"""When folders are pushed, and one push from the changed files to the ledger. Knows no writer."""
