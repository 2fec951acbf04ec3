"""Pictures of volumes. Never here: the command line, scores."""
