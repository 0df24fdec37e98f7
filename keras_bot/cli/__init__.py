"""The command line: one short module per command, and the only package that uses absl flags."""
