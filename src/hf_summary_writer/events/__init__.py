"""Event files and the writer that fills them. Knows the disk alone: no folder, push or Hub."""
