"""Pictures: figures, rooms, and panels for notebooks."""
