"""Readers of files of unknown origin: everything is checked against a file's structure before a byte is unpacked."""
