"""Opening, reading and writing files, with errors that say what to do."""
