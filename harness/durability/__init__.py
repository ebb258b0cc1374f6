"""Nothing is lost: journal, checkpoints, locks and files that appear whole or not at all."""
