"""The commands: each module adds its options to a parser and executes the parsed arguments."""
