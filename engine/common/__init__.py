"""What every other part of the engine uses: errors, whole files, tables for a terminal."""
