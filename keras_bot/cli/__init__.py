"""The command line: one short module a command, and the only place that knows absl's flags."""
