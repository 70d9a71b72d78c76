"""What every folder may use: errors, progress, results, directions, artifacts and statistics."""
