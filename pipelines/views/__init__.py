"""The pages about pipelines: `schedule` (what is owed), `blocks` (what became of it), `machinery` (who does it)."""
