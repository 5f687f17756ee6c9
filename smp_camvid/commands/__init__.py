"""One module a command; each imports torch only when it runs."""
